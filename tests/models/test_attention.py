"""Attention in a loop over heads, and GELU: values and hand-written gradients against NumPy in float64."""

import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from larvseg_jax.assemble import make_method
from larvseg_jax.config import from_config
from larvseg_jax.devices.mesh import make_mesh
from larvseg_jax.methods.larvseg.network import Network
from larvseg_jax.models.attention import attention_of_jax, dot_product_attention
from larvseg_jax.models.attention_choice import device_attention
from larvseg_jax.models.attention_cpu import attention_head_by_head, attention_of_all_heads
from larvseg_jax.models.blocks import gelu
from larvseg_jax.models.vit_config import ViTConfig
from tests import tiny

SHAPE = (2, 7, 3, 4)


def numpy_attention(q, k, v):
    """Picture by picture, head by head."""
    out = np.zeros_like(q)
    for b in range(q.shape[0]):
        for head in range(q.shape[2]):
            scores = np.exp(q[b, :, head] @ k[b, :, head].T / math.sqrt(q.shape[-1]))
            out[b, :, head] = scores / scores.sum(-1, keepdims=True) @ v[b, :, head]
    return out


def numpy_gelu(x):
    return 0.5 * x * (1 + np.vectorize(math.erf)(x / math.sqrt(2)))


def slopes(function, arrays, weights, step=1e-5):
    """Central differences of sum(weights * function(*arrays)) for every number of every array."""
    found = []
    for i, array in enumerate(arrays):
        slope = np.zeros_like(array)
        for place in np.ndindex(array.shape):
            moved = [[x.copy() for x in arrays] for _ in range(2)]
            moved[0][i][place] += step
            moved[1][i][place] -= step
            up, down = (np.sum(weights * function(*x)) for x in moved)
            slope[place] = (up - down) / (2 * step)
        found.append(slope)
    return found


@pytest.fixture
def rng():
    return np.random.default_rng(0)


@pytest.mark.parametrize("attention", [attention_head_by_head, attention_of_all_heads, attention_of_jax])
def test_attention_and_its_gradients(rng, attention):
    q, k, v, weights = 2 * rng.standard_normal((4, *SHAPE))
    single = [jnp.asarray(x, jnp.float32) for x in (q, k, v)]
    np.testing.assert_allclose(jax.jit(attention)(*single), numpy_attention(q, k, v), atol=5e-6)
    gradient = jax.jit(jax.grad(lambda *x: jnp.sum(weights.astype(np.float32) * attention(*x)), (0, 1, 2)))(*single)
    for ours, expected in zip(gradient, slopes(numpy_attention, [q, k, v], weights), strict=True):
        np.testing.assert_allclose(ours, expected, atol=2e-5)


@pytest.mark.parametrize(("devices", "loops"), [(1, True), (2, False), (8, False)])
def test_only_a_single_cpu_device_loops_over_heads(devices, loops):
    vit = ViTConfig(width=4, depth=1, num_heads=2, mlp_dim=4, patch_size=4, image_size=8)
    model = Network(vit, 3, attention=device_attention(vit, jax.devices()[:devices]))
    inputs = jnp.zeros((1, 8, 8, 3)), None, jnp.ones(3)
    program = jax.make_jaxpr(lambda key: model.init(key, *inputs))(jax.random.key(0))
    assert (" scan[" in str(program)) == loops


def test_the_mesh_of_a_run_says_how_many_devices_there_are():
    run = from_config(tiny.get_config())
    meshes = {n: make_mesh(n, 1, over=jax.devices()[:n]) for n in (1, 2)}
    chosen = {n: make_method(run, mesh).model.attention for n, mesh in meshes.items()}
    assert chosen == {1: "head_by_head", 2: "all_heads"}


@pytest.mark.parametrize("how", ["head_by_head", "all_heads", "library"])
def test_all_ways_are_the_same_but_for_rounding(rng, how):
    q, k, v = rng.standard_normal((3, *SHAPE)).astype(np.float32)
    single = map(jnp.asarray, (q, k, v))
    np.testing.assert_allclose(dot_product_attention(*single, how), numpy_attention(q, k, v), atol=5e-6)


def test_large_scores_do_not_overflow(rng):
    q, k, v = rng.standard_normal((3, *SHAPE))
    q, k = 60 * q, 60 * k
    single = [jnp.asarray(x, jnp.float32) for x in (q, k, v)]
    chosen = np.einsum("bqke,bske->bkqs", q, k).argmax(-1)
    out = jax.jit(attention_head_by_head)(*single)
    for b, head in np.ndindex(2, 3):
        np.testing.assert_allclose(out[b, :, head], v[b, chosen[b, head], head], atol=1e-4)
    gradient = jax.grad(lambda *x: jnp.sum(attention_head_by_head(*x)), (0, 1, 2))(*single)
    assert all(bool(jnp.all(jnp.isfinite(x))) for x in gradient)


def test_bfloat16_stays_bfloat16_with_softmax_in_float32(rng):
    narrow = [jnp.asarray(x, jnp.bfloat16) for x in rng.standard_normal((3, *SHAPE))]
    wide = [np.asarray(x, np.float64) for x in narrow]
    out = jax.jit(attention_head_by_head)(*narrow)
    assert out.dtype == jnp.bfloat16
    np.testing.assert_allclose(out.astype(jnp.float32), numpy_attention(*wide), atol=0.03)
    gradient = jax.grad(lambda *x: jnp.sum(attention_head_by_head(*x).astype(jnp.float32) ** 2), (0, 1, 2))(*narrow)
    expected = slopes(numpy_attention, wide, 2 * numpy_attention(*wide))
    for ours, slope in zip(gradient, expected, strict=True):
        assert ours.dtype == jnp.bfloat16
        np.testing.assert_allclose(ours.astype(jnp.float32), slope, atol=0.02 * np.abs(slope).max())


def test_gelu_and_its_gradient():
    x = np.linspace(-9, 9, 181)
    weights = np.cos(x)
    single = jnp.asarray(x, jnp.float32)
    np.testing.assert_allclose(gelu(single), numpy_gelu(x), atol=1e-6)
    gradient = jax.grad(lambda x: jnp.sum(jnp.asarray(weights, jnp.float32) * gelu(x)))(single)
    np.testing.assert_allclose(gradient, slopes(numpy_gelu, [x], weights)[0], atol=1e-6)


def test_gelu_in_bfloat16_is_float32_rounded_once():
    x = jnp.linspace(-4, 4, 101).astype(jnp.bfloat16)
    expected = jnp.asarray(numpy_gelu(np.asarray(x, np.float64)), jnp.bfloat16)
    assert gelu(x).dtype == jnp.bfloat16
    np.testing.assert_array_equal(gelu(x), expected)


def test_gelu_keeps_one_array_for_the_backward_pass():
    x = jnp.ones((5, 6), jnp.bfloat16)
    _, backward = jax.vjp(gelu, x)
    kept = [a for a in jax.tree.leaves(backward) if getattr(a, "shape", ()) == x.shape]
    assert [a.dtype for a in kept] == [jnp.bfloat16]
