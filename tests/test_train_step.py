"""The whole training step, several in a row, against loops in NumPy (tests/reference.py)."""

import collections
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
# name: CA-Classifier variant, what L_seg is divided by, lambda_aux of "many" and "one"
CASES = {
    "cross_image": ("cross_image", "all", 0.5, 0.9),
    "region": ("region", "valid", 0.5, 0.9),
    "own_bank": ("own_bank", "all", 0.5, 0.9),
    "half_off": ("cross_image", "all", 0.0, 0.9),
    "off": ("cross_image", "all", 0.0, 0.0),
}


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
    variant, seg_loss_mean, many, one = CASES[case]
    streams = tuple(
        dataclasses.replace(s, lambda_aux={"many": many, "masks": 0.0, "one": one}[s.name]) for s in STREAMS
    )
    options = CAConfig(
        variant,
        memory_bank_size=SLOTS,
        foreground_topk=3,
        warmup=1,
        background_topk=4,
        background_threshold=0.1,
        background_mse_threshold=1.0,
        class_block=2,
        bank_dtype="float32",
    )
    optimizer = make_optimizer(OPTIMIZER, STEPS)
    step = jax.jit(make_train_step(MODEL, optimizer, streams, options, seg_loss_mean=seg_loss_mean, seed=SEED))
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


@jax.jit
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
    bank, seen = reference_bank(run.states[0].bank), collections.Counter()
    for i in range(STEPS):
        _, metrics, _, bank, situations = reference_step(run, i, bank)
        seen += situations
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
    print(
        case,
        dict(seen),
        bank.wraps,
        [m.get("many/attended") for m in run.metrics],
        [m.get("one/attended") for m in run.metrics],
        [float(m["loss"]) for m in run.metrics],
    )
