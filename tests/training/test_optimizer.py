"""Schedules and updates against the formulas, step by step."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from larvseg_jax.assemble import abstract_batch, fresh_state, lower_step, seeded
from larvseg_jax.config import from_config
from larvseg_jax.devices.mesh import make_mesh
from larvseg_jax.devices.sharding import path_name
from larvseg_jax.errors import UserError
from larvseg_jax.training.optimizer import OptimizerConfig, learning_rate, make_optimizer
from tests import tiny

STEPS = 20


def config(**changes):
    options = dict(
        name="sgd", learning_rate=0.1, min_learning_rate=0.01, power=0.9, warmup_steps=0, momentum=0.9, weight_decay=0.0
    )
    return OptimizerConfig(**options | changes)


def updated(optimizer, params, grads, steps):
    state = optimizer.init(params)
    for _ in range(steps):
        with jax.numpy_dtype_promotion("standard"):  # as in the train step
            updates, state = optimizer.update(grads, state, params)
        params = {name: value + updates[name] for name, value in params.items()}
    return params


@pytest.mark.parametrize("step", [0, 30, 45, 59, 60, 100])
def test_the_learning_rate_falls_as_a_cosine_behind_the_warm_up(step):
    rate = learning_rate(config(schedule="cosine", warmup_steps=20), 60)
    share = min((step - 20) / 40, 1.0)
    expected = 0.01 + 0.09 * (1 + np.cos(np.pi * share)) / 2 if step >= 20 else 0.1 * step / 20
    assert float(rate(step)) == pytest.approx(expected, rel=1e-5, abs=1e-8)


def test_the_learning_rate_falls_by_steps():
    rate = learning_rate(config(schedule="steps", falls=(0.5, 0.9), min_learning_rate=0.0, warmup_steps=10), 110)
    steps = (5, 10, 59, 60, 99, 100, 110)
    np.testing.assert_allclose([rate(t) for t in steps], [0.05, 0.1, 0.1, 0.01, 0.01, 0.001, 0.001], rtol=1e-5)


def test_long_gradients_are_cut_and_the_backbone_is_slower():
    """SGD without momentum, whose updates are the gradients: (3, 4) of length 5 become (0.6, 0.8)."""
    options = config(momentum=0.0, power=0.0, clip_norm=1.0, backbone_rate=0.5)
    params, gradient = ({"backbone": {"x": jnp.array([a])}, "y": jnp.array([b])} for a, b in ((0.0, 0.0), (3.0, 4.0)))
    for frozen, expected in (("", (-0.03, -0.08)), ("^backbone/", (0.0, -0.1))):
        optimizer = make_optimizer(dataclasses.replace(options, frozen=frozen), STEPS)
        with jax.numpy_dtype_promotion("standard"):
            updates, _ = optimizer.update(gradient, optimizer.init(params), params)
        np.testing.assert_allclose((updates["backbone"]["x"][0], updates["y"][0]), expected, rtol=1e-5)


def test_the_learning_rate_falls_polynomially_to_its_floor():
    rate = learning_rate(config(), STEPS)
    expected = [(0.1 - 0.01) * (1 - t / STEPS) ** 0.9 + 0.01 for t in range(STEPS + 1)]
    np.testing.assert_allclose([rate(t) for t in range(STEPS + 1)], expected, rtol=1e-6)


def test_the_defaults_are_the_originals_numbers():
    """docs/method.md, section 8."""
    sgd = OptimizerConfig("sgd", 1e-3, 1e-5, power=0.9, warmup_steps=0, momentum=0.9, weight_decay=0.0, frozen="")
    assert OptimizerConfig() == sgd


def test_after_a_warm_up_it_falls_over_the_steps_that_are_left():
    rate = learning_rate(config(warmup_steps=4), STEPS)
    np.testing.assert_allclose([rate(t) for t in range(4)], [0.0, 0.025, 0.05, 0.075], rtol=1e-6)
    expected = [(0.1 - 0.01) * (1 - t / 16) ** 0.9 + 0.01 for t in range(17)]
    np.testing.assert_allclose([rate(4 + t) for t in range(17)], expected, rtol=1e-6)


def test_sgd_without_dampening_and_nesterov():
    gradient, momentum, value = np.array([1.0, -2.0]), np.zeros(2), np.array([3.0, 4.0])
    for t in range(5):
        momentum = 0.9 * momentum + gradient
        value = value - ((0.1 - 0.01) * (1 - t / STEPS) ** 0.9 + 0.01) * momentum
    ours = updated(make_optimizer(config(), STEPS), {"x": jnp.array([3.0, 4.0])}, {"x": jnp.array([1.0, -2.0])}, 5)
    np.testing.assert_allclose(ours["x"], value, rtol=1e-5)


def test_adamw_decays_kernels_only():
    params = {"kernel": jnp.array([2.0]), "bias": jnp.array([2.0]), "class_embeddings": jnp.array([2.0])}
    no_gradient = {name: jnp.zeros(1) for name in params}
    optimizer = make_optimizer(config(name="adamw", weight_decay=0.5), STEPS)
    with_decay = updated(optimizer, params, no_gradient, 1)
    np.testing.assert_allclose(with_decay["kernel"], 2.0 - 0.1 * 0.5 * 2.0, rtol=1e-6)
    np.testing.assert_array_equal([with_decay["bias"], with_decay["class_embeddings"]], [[2.0], [2.0]])


def test_what_sgd_would_ignore_is_refused():
    with pytest.raises(UserError, match="weight_decay is for adamw"):
        make_optimizer(config(weight_decay=0.1), STEPS)


def random_batch(run, mesh):
    """Noise, all of it background."""
    rng = np.random.default_rng(0)

    def fill(spec):
        values = rng.standard_normal(spec.shape) if spec.dtype == np.float32 else np.ones(spec.shape)
        return jax.device_put(values.astype(spec.dtype), spec.sharding)

    return jax.tree.map(fill, abstract_batch(run, mesh))


@pytest.mark.slow
@pytest.mark.parametrize("name", ["sgd", "adamw"])
def test_what_is_frozen_does_not_move_and_has_no_state(name):
    config = tiny.get_config()
    config.optimizer.update(name=name, weight_decay=0.5 if name == "adamw" else 0.0, warmup_steps=0)
    config.optimizer.frozen = "^backbone/|gamma$"
    run, mesh = from_config(config), make_mesh(2, 1, jax.devices()[:2])
    state = fresh_state(run, mesh)
    before = jax.device_get(state)
    step = seeded(run, mesh, lower_step(run, mesh, state).compile())
    after, _ = step(state, random_batch(run, mesh))
    moved = set()
    for (path, old), new in zip(
        jax.tree_util.tree_leaves_with_path(before.params), jax.tree.leaves(after.params), strict=True
    ):
        if np.any(old != np.asarray(new)):
            moved.add(path_name(path))
    moved.discard("head/beta")  # its gradient is zero but for rounding
    assert moved == {"head/class_embeddings", "head/proj_classes", "head/proj_patch"}
    kept = [path_name(path) for path, _ in jax.tree_util.tree_leaves_with_path(after.opt_state)]
    assert [path for path in kept if path.endswith("head/class_embeddings")]
    assert not [path for path in kept if "backbone" in path or path.endswith("gamma")]


def test_frozen_must_be_a_regular_expression():
    with pytest.raises(UserError, match=r"optimizer.frozen is '\^backbone\(', no regular expression"):
        config(frozen="^backbone(")
