"""Products that are precise: what is asked of which device."""

from unittest import mock

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.sharding import AbstractDevice, AbstractMesh

from larvseg_jax.models.any_device import on_any_device
from larvseg_jax.models.precision import has_bfloat16, precise_einsum

TPU = AbstractDevice(device_kind="TPU v5 lite", num_cores=1, platform="tpu")
GPU = AbstractDevice(device_kind="NVIDIA H100", num_cores=132, platform="gpu")


def product(x):
    return precise_einsum("ab,cb->ac", x, x)


def products_of_gradient(device):
    """How many products the program of a gradient has for a device: (all, those of three passes, full ones)."""
    mesh = AbstractMesh((1,), ("data",), (jax.sharding.AxisType.Auto,), abstract_device=device)
    with jax.sharding.use_abstract_mesh(mesh):
        program = str(jax.make_jaxpr(jax.grad(lambda x: jnp.sum(product(x))))(jnp.ones((3, 4))))
    return tuple(map(program.count, ("dot_general[", "precision=BF16_BF16_F32_X3", "precision=(Precision.HIGHEST")))


@pytest.mark.parametrize("device", [TPU, GPU])
def test_accelerators_are_asked_for_three_passes_forward_and_backward(device):
    found, three, full = products_of_gradient(device)
    assert found == three > 1
    assert full == 0


def test_a_cpu_and_a_program_for_any_device_are_asked_for_full_float32(monkeypatch):
    found, three, full = products_of_gradient(AbstractDevice(device_kind="cpu", num_cores=1, platform="cpu"))
    assert (found, three) == (full, 0)
    with on_any_device("plain"):
        found, three, full = products_of_gradient(TPU)
    assert (found, three) == (full, 0)


def test_a_gpu_of_this_process_without_bfloat16_is_asked_for_full_float32(monkeypatch):
    own = mock.Mock(spec=jax.Device, platform="gpu", compute_capability="7.5")
    monkeypatch.setattr(jax, "local_devices", lambda: [own])
    assert products_of_gradient(GPU)[1] == 0
    own.compute_capability = "9.0"
    assert products_of_gradient(GPU)[1] > 1


@pytest.mark.parametrize(("capability", "has"), [("9.0", True), ("8.0", True), ("7.5", False), ("gfx90a", False)])
def test_which_gpus_have_bfloat16(capability, has):
    assert has_bfloat16(mock.Mock(spec=jax.Device, platform="gpu", compute_capability=capability)) is has


def test_a_cpu_computes_in_full_float32():
    x = jax.random.normal(jax.random.key(0), (64, 768))
    exact = np.asarray(x, np.float64) @ np.asarray(x, np.float64).T
    np.testing.assert_allclose(product(x), exact, atol=2e-3)  # of numbers up to 900; a bfloat16 pass is off by 0.3
