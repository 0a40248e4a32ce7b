"""The whole training step, several in a row, against loops in NumPy (tests/reference.py)."""

import dataclasses
import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from larvseg_jax.ca_classifier import CAConfig
from larvseg_jax.memory_bank import MemoryBank
from larvseg_jax.models.segmenter import Segmenter, segment
from larvseg_jax.models.vit import ViTConfig
from larvseg_jax.optimizer import OptimizerConfig, make_optimizer
from larvseg_jax.train_state import TrainState
from larvseg_jax.train_step import StreamLoss, make_train_step
from larvseg_jax.vocabulary import Vocabulary
from tests import reference

SEED, STEPS, SLOTS, WIDTH = 3, 4, 2, 16
VOCABULARY = Vocabulary(tuple("abcdefgh"), base=(), novel=())
VIT = ViTConfig(width=WIDTH, depth=1, num_heads=2, mlp_dim=32, patch_size=4, image_size=16)
MODEL = Segmenter(VIT, len(VOCABULARY.classes), gamma_init=2.0)
OPTIMIZER = OptimizerConfig("sgd", 0.05, 0.01, power=0.9, warmup_steps=0, momentum=0.9, weight_decay=0.0)
# Several names of a class are several columns; "many" and "one" share c, e and h, so both write to these rings.
STREAMS = (
    StreamLoss("many", "tags", VOCABULARY.label_set("ebaahc"), 0.7, lambda_cls=0.3, lambda_aux=0.5, loss_size=8),
    StreamLoss("masks", "masks", VOCABULARY.label_set("gbbd"), 1.3, lambda_cls=0.0, lambda_aux=0.0, loss_size=8),
    StreamLoss("one", "tags", VOCABULARY.label_set("cfeddh"), 0.4, lambda_cls=0.6, lambda_aux=0.9, loss_size=12),
)
# name: CA-Classifier variant, what L_seg is divided by, lambda_aux of "many" and "one", backgrounds that must occur
CASES = {
    "cross_image": ("cross_image", "all", 0.5, 0.9, {"", "other labels", "mined", "nothing"}),
    "region": ("region", "valid", 0.5, 0.9, {""}),
    "own_bank": ("own_bank", "all", 0.5, 0.0, {"other labels", "mined", "nothing"}),  # "one" still writes
    "off": ("cross_image", "all", 0.0, 0.0, set()),
}
# Compiled without optimisation: compiling is most of the time these tests take.
compiled = functools.partial(jax.jit, compiler_options={"xla_backend_optimization_level": 0})


@dataclasses.dataclass
class Run:
    """Consecutive steps of the library: states[i], batches[i] -> states[i + 1], metrics[i]."""

    streams: tuple
    options: CAConfig
    seg_loss_mean: str
    batches: list
    states: list
    metrics: list


@functools.cache
def run_of(case):
    variant, seg_loss_mean, many, one, _ = CASES[case]
    streams = tuple(
        dataclasses.replace(s, lambda_aux={"many": many, "masks": 0.0, "one": one}[s.name]) for s in STREAMS
    )
    options = CAConfig(
        variant,
        memory_bank_size=SLOTS,
        foreground_topk=3,
        warmup=1,
        background_topk=4,
        background_threshold=0.2,
        background_mse_threshold=1.5,
        class_block=2,
        bank_dtype="float32",
    )
    optimizer = make_optimizer(OPTIMIZER, STEPS)
    step = compiled(make_train_step(MODEL, optimizer, streams, options, seg_loss_mean=seg_loss_mean, seed=SEED))
    rng = np.random.default_rng(SEED)
    run = Run(streams, options, seg_loss_mean, [batch(rng) for _ in range(STEPS)], [first_state(MODEL)], [])
    for data in run.batches:
        state, metrics = step(run.states[-1], data)
        run.states.append(jax.device_get(state))
        run.metrics.append(jax.device_get(metrics))
    return run


def first_state(model):
    images = jnp.zeros((1, 16, 16, 3))
    params = model.init(jax.random.key(0), images, jnp.zeros(1, jnp.int32), jnp.ones(1))["params"]
    bank = MemoryBank.empty(model.num_classes, SLOTS, WIDTH)
    return TrainState(jnp.zeros((), jnp.int32), params, make_optimizer(OPTIMIZER, STEPS).init(params), bank)


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


@compiled
def outputs(params, data):
    """Patch features and class table of every stream."""
    return {s.name: segment(MODEL, params, data[s.name]["image"], s.label_set) for s in STREAMS}


def reference_step(run, index, bank, params=None, frozen=None):
    params = run.states[index].params if params is None else params
    out = outputs(params, run.batches[index])
    return reference.step(run.streams, out, run.batches[index], bank, run.options, run.seg_loss_mean, frozen)


def reference_bank(bank):
    return reference.Bank(bank.slots, bank.cursor, bank.wraps)


@pytest.mark.parametrize("case", CASES)
def test_losses_and_bank_of_consecutive_steps(case):
    run = run_of(case)
    bank, seen = reference_bank(run.states[0].bank), set()
    for i in range(STEPS):
        _, metrics, pairs, bank = reference_step(run, i, bank)
        seen |= {pair.background for s in run.streams if s.lambda_aux for pair in pairs[s.name]}
        if case == "off":
            metrics = {name: value for name, value in metrics.items() if not name.endswith("attended")}
        metrics["gamma"] = run.states[i + 1].params["head"]["gamma"]
        assert run.metrics[i].keys() == metrics.keys()
        for name, value in metrics.items():
            np.testing.assert_allclose(run.metrics[i][name], value, rtol=1e-5, atol=1e-6, err_msg=f"{name}, step {i}")
        ours = run.states[i + 1].bank
        np.testing.assert_array_equal(ours.cursor, bank.cursor)
        np.testing.assert_array_equal(ours.wraps, bank.wraps)
        np.testing.assert_allclose(ours.slots, bank.slots, atol=2e-6)
        np.testing.assert_allclose(ours.class_mean, [bank.mean(row) for row in range(len(bank.slots))], atol=2e-6)
        assert run.states[i + 1].step == i + 1
    assert seen == CASES[case][-1], "other pictures are needed"


@pytest.mark.parametrize("case", ["cross_image", "region", "own_bank"])
def test_the_gradient_is_the_slope_of_the_loss_with_attention_held_fixed(case):
    run, i = run_of(case), STEPS - 1
    before, after = run.states[i], run.states[i + 1]
    gradient = jax.tree.map(lambda new, old: new - OPTIMIZER.momentum * old, momentum(after), momentum(before))
    bank = reference_bank(before.bank)
    _, _, unmoved, _ = reference_step(run, i, bank)

    def loss_at(distance, direction):
        params = jax.tree.map(lambda p, d: (p + distance * d).astype(np.float32), before.params, direction)
        return reference_step(run, i, bank, params, frozen=unmoved)[0]

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


def test_drop_path_is_a_function_of_seed_and_step():
    # The first block drops nothing, hence two.
    model = Segmenter(dataclasses.replace(VIT, depth=2, drop_path=0.5), len(VOCABULARY.classes))
    left = dataclasses.replace(STREAMS[1], name="left")
    streams = (left, dataclasses.replace(left, name="right"))
    optimizer, options = make_optimizer(OPTIMIZER, STEPS), run_of("off").options
    state, masks = first_state(model), batch(np.random.default_rng(0))["masks"]
    data = {"left": masks, "right": masks}

    def step_with(seed):
        return compiled(make_train_step(model, optimizer, streams, options, seg_loss_mean="all", seed=seed))

    step = step_with(seed=0)
    once, again = (jax.device_get(step(state, data)) for _ in range(2))
    jax.tree.map(np.testing.assert_array_equal, once, again)
    losses = [once[1]["left/L_seg"], once[1]["right/L_seg"]]  # every stream draws its own
    for _, metrics in (step(state.replace(step=jnp.ones((), jnp.int32)), data), step_with(seed=1)(state, data)):
        losses += [float(metrics["left/L_seg"]), float(metrics["right/L_seg"])]
    gaps = np.diff(np.sort(losses))
    assert gaps.min() > 1e-4, "two of six draws are the same"
