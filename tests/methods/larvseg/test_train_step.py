"""The whole training step, several in a row, against loops in NumPy (reference.py)."""

import copy
import dataclasses
import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from data_pipelines.views import MaskView, TagView
from larvseg_jax.assemble import make_method
from larvseg_jax.config import from_config
from larvseg_jax.devices.mesh import make_mesh
from larvseg_jax.devices.sharding import ShardingRules
from larvseg_jax.methods.larvseg import Config
from larvseg_jax.methods.larvseg.ca_classifier import CAConfig
from larvseg_jax.methods.larvseg.method import LarvSeg
from larvseg_jax.methods.larvseg.network import segment
from larvseg_jax.methods.larvseg.options import MaskLoss, TagLoss
from larvseg_jax.methods.method import StreamTask, Task
from larvseg_jax.models.vit_config import ViTConfig
from larvseg_jax.training.optimizer import OptimizerConfig, make_optimizer
from larvseg_jax.training.state import initial_state
from larvseg_jax.training.step import make_train_step
from larvseg_jax.vocabulary import Vocabulary
from tests import tiny
from tests.methods.larvseg import reference

SEED, STEPS, SLOTS, WIDTH = 3, 4, 2, 16
VOCABULARY = Vocabulary(tuple("abcdefgh"), base=(), novel=())
VIT = ViTConfig(width=WIDTH, depth=1, num_heads=2, mlp_dim=32, patch_size=4, image_size=16)
OPTIMIZER = OptimizerConfig("sgd", 0.05, 0.01, power=0.9, warmup_steps=0, momentum=0.9, weight_decay=0.0)
# Several names of a class are several columns; "many" and "one" share c, e and h, so both write to these rings.
STREAMS = {
    "many": StreamTask(
        VOCABULARY.label_set("ebaahc"), TagView(crop_size=16, max_labels=3), TagLoss(0.7, lambda_cls=0.3), 6
    ),
    "masks": StreamTask(VOCABULARY.label_set("gbbd"), MaskView(crop_size=16), MaskLoss(1.3), 3),
    "one": StreamTask(
        VOCABULARY.label_set("cfeddh"), TagView(crop_size=24, max_labels=1), TagLoss(0.4, lambda_cls=0.6), 5
    ),
}
# name: CA-Classifier variant, what L_seg is divided by, lambda_aux of "many" and "one", backgrounds that must occur
CASES = {
    "cross_image": ("cross_image", "all", 0.5, 0.9, {"", "other labels", "mined", "nothing"}),
    "region": ("region", "valid", 0.5, 0.9, {""}),
    "own_bank": ("own_bank", "all", 0.5, 0.0, {"other labels", "mined", "nothing"}),  # "one" still writes
    "off": ("cross_image", "all", 0.0, 0.0, set()),
    "lead": ("cross_image", "all", 0.5, 0.9, {"", "other labels", "mined", "nothing"}),
}


@dataclasses.dataclass
class Run:
    """Consecutive steps of the library: states[i], batches[i] -> states[i + 1], metrics[i]."""

    method: LarvSeg
    batches: list
    states: list
    metrics: list


@functools.cache
def run_of(case):
    variant, seg_loss_mean, many, one, _ = CASES[case]
    ca = CAConfig(
        variant,
        memory_bank_size=SLOTS,
        foreground_topk=3,
        foreground_by="lead" if case == "lead" else "score",
        warmup=1,
        background_topk=4,
        background_threshold=0.2,
        background_mse_threshold=1.5,
        class_block=2,
        bank_dtype="float32",
    )
    streams = dict(STREAMS)
    for name, weight in (("many", many), ("one", one)):
        loss = dataclasses.replace(STREAMS[name].loss, lambda_aux=weight)
        streams[name] = STREAMS[name]._replace(loss=loss)
    method = larvseg(Config(gamma_init=2.0, seg_loss_mean=seg_loss_mean, ca_classifier=ca), streams)
    step = jax.jit(make_train_step(method, make_optimizer(OPTIMIZER, STEPS), seed=SEED))
    rng = np.random.default_rng(SEED)
    run = Run(method, [batch(rng) for _ in range(STEPS)], [jax.device_get(first_state(method))], [])
    for data in run.batches:
        state, metrics = step(run.states[-1], data)
        run.states.append(jax.device_get(state))
        run.metrics.append(jax.device_get(metrics))
    return run


def larvseg(config, streams, vit=VIT):
    return LarvSeg(config, Task(len(VOCABULARY.classes), vit, streams, one_device()))


def one_device():
    return make_mesh(1, 1, jax.devices()[:1])


def first_state(method):
    optimizer = make_optimizer(OPTIMIZER, STEPS)
    return initial_state(method, optimizer, seed=0, mesh=one_device(), rules=ShardingRules((), False))


def batch(rng):
    """Random pictures; "many" has images with 0 to 3 tags, "one" an image of padding."""
    many = [sorted(rng.choice(5, size=k, replace=False)) for k in (3, 2, 1, 0, 1, 2)]
    label = rng.integers(-1, 3, (3, 8, 8))
    data = {
        "many": {"image": pictures(rng, 6, 16), "tags": [tags + [-1] * (3 - len(tags)) for tags in many]},
        "masks": {"image": pictures(rng, 3, 16), "label": label, "valid": [True, True, False]},
        "one": {"image": pictures(rng, 5, 24), "tags": [*rng.integers(0, 5, (4, 1)).tolist(), [-1]]},
    }
    dtypes = {"image": np.float32, "tags": np.int32, "label": np.int32, "valid": bool}
    return {name: {k: np.asarray(v, dtypes[k]) for k, v in stream.items()} for name, stream in data.items()}


def pictures(rng, count, side):
    coarse = rng.standard_normal((count, side // 8, side // 8, 3)).repeat(8, 1).repeat(8, 2)
    return coarse + 0.5 * rng.standard_normal((count, side, side, 3))


@functools.cache
def outputs_of(case):
    """(params, batch) -> patch features and class table of every stream."""
    method = run_of(case).method

    def outputs(params, data):
        return {s.name: segment(method.model, params, data[s.name]["image"], s.label_set) for s in method.streams}

    return jax.jit(outputs)


def reference_step(case, index, bank, params=None, frozen=None):
    run = run_of(case)
    config = run.method.config
    params = run.states[index].params if params is None else params
    out, data = outputs_of(case)(params, run.batches[index]), run.batches[index]
    return reference.step(run.method.streams, out, data, bank, config.ca_classifier, config.seg_loss_mean, frozen)


def reference_bank(bank):
    return reference.Bank(bank.slots, bank.cursor, bank.wraps)


@pytest.mark.parametrize(
    "case", [pytest.param(case, marks=[pytest.mark.slow] * (case != "cross_image")) for case in CASES]
)
def test_losses_and_bank_of_consecutive_steps(case):
    run = run_of(case)
    bank, seen = reference_bank(run.states[0].memory), set()
    attending = [s.name for s in run.method.streams if reference.tagged(s) and s.loss.lambda_aux]
    for i in range(STEPS):
        _, metrics, pairs, bank = reference_step(case, i, bank)
        seen |= {pair.background for name in attending for pair in pairs[name]}
        if case == "off":
            metrics = {name: value for name, value in metrics.items() if not name.endswith("attended")}
        metrics["gamma"] = run.states[i].params["head"]["gamma"]  # that of the step's losses
        assert run.metrics[i].keys() == metrics.keys()
        for name, value in metrics.items():
            np.testing.assert_allclose(run.metrics[i][name], value, rtol=1e-5, atol=1e-6, err_msg=f"{name}, step {i}")
        ours = run.states[i + 1].memory
        np.testing.assert_array_equal(ours.cursor, bank.cursor)
        np.testing.assert_array_equal(ours.wraps, bank.wraps)
        np.testing.assert_allclose(ours.slots, bank.slots, atol=2e-6)
        np.testing.assert_allclose(ours.class_mean, [bank.mean(row) for row in range(len(bank.slots))], atol=2e-6)
        assert run.states[i + 1].step == i + 1
    assert seen == CASES[case][-1], "other pictures are needed"


def test_every_loss_has_the_weight_of_its_own_stream():
    """The sum of Eq. 6 with its numbers written out."""
    metrics = {name: float(value) for name, value in run_of("cross_image").metrics[-1].items()}
    many = 0.7 * (0.3 * metrics["many/L_cls"] + 0.5 * metrics["many/L_aux"])
    one = 0.4 * (0.6 * metrics["one/L_cls"] + 0.9 * metrics["one/L_aux"])
    assert metrics["loss"] == pytest.approx(many + one + 1.3 * metrics["masks/L_seg"], rel=1e-6)
    parts = [metrics[f"{stream}/{loss}"] for stream in ("many", "one") for loss in ("L_cls", "L_aux")]
    assert np.diff(sorted(parts)).min() > 1e-3, "two losses are the same: exchanging them would not be seen"


def test_the_lambdas_of_a_config_reach_their_own_streams():
    config = tiny.get_config()
    config.streams.tags.update(weight=0.7, lambda_cls=0.3, lambda_aux=0.5)
    config.streams.more = copy.deepcopy(config.streams.tags)
    config.streams.more.update(weight=0.4, lambda_cls=0.6, lambda_aux=0.9)
    method = make_method(from_config(config), one_device())
    weights = {
        s.name: (s.loss.weight, s.loss.lambda_cls, s.loss.lambda_aux) for s in method.streams if s.name != "masks"
    }
    assert weights == {"tags": (0.7, 0.3, 0.5), "more": (0.4, 0.6, 0.9)}


@pytest.mark.parametrize("case", ["cross_image", "region", "own_bank"])
def test_the_gradient_is_the_slope_of_the_loss_with_attention_held_fixed(case):
    run, i = run_of(case), STEPS - 1
    before, after = run.states[i], run.states[i + 1]
    gradient = jax.tree.map(lambda new, old: new - OPTIMIZER.momentum * old, momentum(after), momentum(before))
    bank = reference_bank(before.memory)
    _, _, unmoved, _ = reference_step(case, i, bank)

    def loss_at(distance, direction):
        params = jax.tree.map(lambda p, d: (p + distance * d).astype(np.float32), before.params, direction)
        return reference_step(case, i, bank, params, frozen=unmoved)[0]

    rng, h = np.random.default_rng(1), 3e-3
    for _ in range(2):
        # As long as the parameters are in every leaf.
        direction = jax.tree.map(lambda p: rng.standard_normal(p.shape) * np.sqrt(np.mean(p**2)), before.params)
        near, far = ((loss_at(x, direction) - loss_at(-x, direction)) / (2 * x) for x in (h, 2 * h))
        terms = jax.tree.leaves(jax.tree.map(lambda g, d: g * d, gradient, direction))
        terms = np.concatenate([x.ravel() for x in terms])
        # Without stop_gradient, or with the attention of the moved parameters, it would be off by a hundredth.
        np.testing.assert_allclose(terms.sum(), (4 * near - far) / 3, atol=3e-4 * np.linalg.norm(terms))


def test_sgd_moves_the_parameters_against_the_momentum():
    run = run_of("cross_image")
    for i, (before, after) in enumerate(zip(run.states[:-1], run.states[1:], strict=True)):
        rate = (0.05 - 0.01) * (1 - i / STEPS) ** 0.9 + 0.01
        for old, new, m in zip(*map(jax.tree.leaves, (before.params, after.params, momentum(after))), strict=True):
            np.testing.assert_allclose(new, np.float64(old) - rate * np.float64(m), rtol=1e-6, atol=1e-7)


def momentum(state):
    return state.opt_state[0].trace


@pytest.mark.slow
def test_drop_path_is_a_function_of_seed_and_step():
    # The first block drops nothing, hence two.
    streams = {"left": STREAMS["masks"], "right": STREAMS["masks"]}
    method = larvseg(Config(), streams, dataclasses.replace(VIT, depth=2, drop_path=0.5))
    state, masks = first_state(method), batch(np.random.default_rng(0))["masks"]
    data = {"left": masks, "right": masks}

    def step_with(seed):
        return jax.jit(make_train_step(method, make_optimizer(OPTIMIZER, STEPS), seed=seed))

    step = step_with(seed=0)
    once, again = (jax.device_get(step(state, data)) for _ in range(2))
    jax.tree.map(np.testing.assert_array_equal, once, again)
    losses = [once[1]["left/L_seg"], once[1]["right/L_seg"]]  # every stream draws its own
    for _, metrics in (step(state.replace(step=jnp.ones((), jnp.int32)), data), step_with(seed=1)(state, data)):
        losses += [float(metrics["left/L_seg"]), float(metrics["right/L_seg"])]
    gaps = np.diff(np.sort(losses))
    assert gaps.min() > 1e-4, "two of six draws are the same"
