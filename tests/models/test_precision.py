"""Products that are precise: what is asked of which device, and how far three bfloat16 passes are from float32."""

from unittest import mock

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from larvseg_jax.models.any_device import on_any_device
from larvseg_jax.models.precision import has_three_passes, precise_einsum


def product(x):
    return precise_einsum("ab,cb->ac", x, x)


def test_accelerators_are_asked_for_three_passes_forward_and_backward():
    program = jax.jit(jax.grad(lambda x: jnp.sum(product(x)))).lower(jnp.ones((3, 4))).as_text()
    assert program.count("dot_general") == program.count("num_primitive_operations = 3") > 1


def test_a_program_for_any_device_asks_for_full_float32():
    with on_any_device("plain"):
        program = jax.jit(product).lower(jnp.ones((3, 4))).as_text()
    assert "precision = [HIGHEST, HIGHEST]" in program
    assert "num_primitive_operations" not in program


@pytest.mark.parametrize(
    ("platform", "capability", "has"),
    [("cpu", None, True), ("tpu", None, True), ("gpu", "9.0", True), ("gpu", "8.0", True), ("gpu", "7.5", False),
     ("gpu", "gfx90a", False)],
)  # fmt: skip
def test_which_devices_have_them(platform, capability, has):
    device = mock.Mock(spec=jax.Device, platform=platform, compute_capability=capability)
    assert has_three_passes(device) is has


def test_a_cpu_computes_in_full_float32():
    x = jax.random.normal(jax.random.key(0), (64, 768))
    exact = np.asarray(x, np.float64) @ np.asarray(x, np.float64).T
    np.testing.assert_allclose(product(x), exact, atol=2e-3)  # of numbers up to 900; a bfloat16 pass is off by 0.3
