"""Attention in one kernel, for accelerators that are not here: which one is taken, what it is asked, its values."""

import functools
import importlib.util
import subprocess
import sys
from unittest import mock

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax._src.cudnn import fused_attention_stablehlo

from larvseg_jax.compile_check.cudnn import cudnn_of
from larvseg_jax.compile_check.target import Target
from larvseg_jax.devices.mesh import make_mesh
from larvseg_jax.devices.peaks import CHIPS
from larvseg_jax.models.any_device import on_any_device
from larvseg_jax.models.attention import dot_product_attention, filled_up
from larvseg_jax.models.attention_choice import attention_line, device_attention
from larvseg_jax.models.attention_tpu import attention_of_splash, blocks
from larvseg_jax.models.vit import VisionTransformer
from larvseg_jax.models.vit_config import ViTConfig
from tests.conftest import REPOSITORY
from tests.models.test_attention import numpy_attention

SMALL = ViTConfig(width=16, depth=2, num_heads=2, mlp_dim=16, patch_size=4, image_size=16, dtype="bfloat16")
GPU = mock.Mock(spec=jax.Device, platform="gpu", compute_capability="9.0")
TPU = mock.Mock(spec=jax.Device, platform="tpu")
H100 = Target("h100:1x1", CHIPS["h100"], (GPU,), 0.0)


def with_dtype(dtype):
    return ViTConfig(width=16, depth=1, num_heads=2, mlp_dim=16, patch_size=4, image_size=16, dtype=dtype)


@pytest.mark.parametrize(
    ("device", "dtype", "how", "line"),
    [
        (GPU, "bfloat16", "cudnn", "attention: fused (cuDNN)"),
        (GPU, "float32", "library", "attention: not fused, because cuDNN has none in float32"),
        (TPU, "bfloat16", "splash", "attention: fused (splash)"),
        (TPU, "float32", "library", "attention: not fused, because the kernel is for bfloat16"),
    ],
)
def test_the_kernel_of_a_device_or_the_reason_why_not(device, dtype, how, line):
    with cudnn_of(H100):
        assert device_attention(with_dtype(dtype), [device] * 8) == how
        assert attention_line(with_dtype(dtype), device).startswith(line)


def test_a_gpu_without_cudnn_says_so_and_computes_plainly(monkeypatch):
    def check_cudnn_version():
        raise RuntimeError("cuDNN is not detected.")

    monkeypatch.setattr(fused_attention_stablehlo, "check_cudnn_version", check_cudnn_version)
    assert device_attention(SMALL, [GPU]) == "library"
    assert "not fused, because cuDNN's is refused here (cuDNN is not detected)" in attention_line(SMALL, GPU)


@pytest.mark.parametrize(("capability", "reached", "not_reached"), [("9.0", "8.0", "10.0"), ("10.0", "9.0", "10.3")])
def test_jax_finds_the_tensor_cores_of_the_target(capability, reached, not_reached):
    device = mock.Mock(spec=jax.Device, platform="gpu", compute_capability=capability)
    with cudnn_of(Target("b200:1x1", CHIPS["b200"], (device,), 0.0)):
        assert fused_attention_stablehlo.check_compute_capability(reached)
        assert not fused_attention_stablehlo.check_compute_capability(not_reached)
        assert fused_attention_stablehlo.is_cuda_compute_capability_equal(capability)
        assert not fused_attention_stablehlo.is_cuda_compute_capability_equal(reached)


def test_heads_that_cudnn_does_not_take_are_refused_by_name():
    odd = ViTConfig(width=20, depth=1, num_heads=2, mlp_dim=16, patch_size=4, image_size=16, dtype="bfloat16")
    with cudnn_of(H100):
        assert device_attention(odd, [GPU]) == "library"
        assert "The head dim must be" in attention_line(odd, GPU)


def test_a_cpu_has_nothing_to_say():
    assert attention_line(SMALL, jax.devices()[0]) == ""


def loss_of(how, images, params):
    tokens = VisionTransformer(SMALL, how).apply({"params": params}, images)
    return jnp.sum(jnp.square(tokens.patches)) + jnp.sum(tokens.cls)


@pytest.fixture(scope="module")
def images_and_params():
    images = jax.random.normal(jax.random.key(1), (2, 16, 16, 3))
    return images, VisionTransformer(SMALL).init(jax.random.key(0), images)["params"]


def test_the_program_for_a_gpu_calls_cudnn_forward_and_backward_in_every_block(images_and_params):
    images, params = images_and_params
    with cudnn_of(H100):
        traced = jax.jit(jax.grad(functools.partial(loss_of, "cudnn", images))).trace(params)
        program = traced.lower(lowering_platforms=("cuda",)).as_text()
    # 16 patches and a class token are odd: 18, of which 17 are attended to.
    assert program.count("__cudnn$fmhaSoftmax(") == program.count("__cudnn$fmhaSoftmaxBackward(") == SMALL.depth
    assert "2x18x2x8xbf16" in program
    assert "17x17" not in program  # no scores


def test_exported_programs_call_no_kernel(images_and_params):
    images, params = images_and_params
    with on_any_device("plain"):
        program = jax.jit(functools.partial(loss_of, "cudnn", images)).lower(params).as_text()
    assert "cudnn" not in program
    assert "18x" not in program


def test_an_empty_token_changes_nothing(images_and_params, monkeypatch):
    images, params = images_and_params
    asked = []
    plain = jax.nn.dot_product_attention

    def without_kernel(*arrays, implementation=None, **options):
        asked.append((implementation, arrays[0].shape[1]))
        return plain(*arrays, **options)

    with jax.numpy_dtype_promotion("standard"):  # the library's own gradient
        expected = jax.value_and_grad(functools.partial(loss_of, "library", images))(params)
        monkeypatch.setattr(jax.nn, "dot_product_attention", without_kernel)
        found = jax.value_and_grad(functools.partial(loss_of, "cudnn", images))(params)
    assert asked == [("cudnn", 18)] * SMALL.depth
    for ours, theirs in zip(jax.tree.leaves(found), jax.tree.leaves(expected), strict=True):
        np.testing.assert_allclose(ours, theirs, atol=0.02 * float(np.abs(theirs).max()))


def test_even_numbers_of_tokens_stay():
    assert filled_up(jnp.zeros((1, 16, 4)), "cudnn")[1] is None
    assert filled_up(jnp.zeros((1, 17, 4)), "library")[1] is None


@pytest.mark.parametrize(
    ("tokens", "expected"),
    [(1025, (1152, 384, 1152)), (401, (512, 512, 512)), (145, (256, 256, 256)), (2305, (2560, 512, 512))],
)
def test_blocks_leave_few_tokens_empty(tokens, expected):
    assert blocks(tokens) == expected


@pytest.mark.parametrize("tokens", [256, 257])
def test_the_tpu_kernel_against_numpy(tokens):
    q, k, v, weights = np.random.default_rng(0).standard_normal((4, 2, tokens, 2, 8))
    single = [jnp.asarray(x, jnp.float32) for x in (q, k, v)]
    with jax.numpy_rank_promotion("allow"), jax.numpy_dtype_promotion("standard"):  # the kernel's own code
        kernel = functools.partial(attention_of_splash, interpret=True)
        np.testing.assert_allclose(kernel(*single), numpy_attention(q, k, v), atol=5e-6)
        found, expected = (
            jax.grad(lambda *x, f=f: jnp.sum(weights.astype(np.float32) * f(*x)), (0, 1, 2))(*single)
            for f in (kernel, lambda *x: dot_product_attention(*x, "library"))
        )
    for ours, theirs in zip(found, expected, strict=True):
        np.testing.assert_allclose(ours, theirs, atol=2e-5)


def test_on_a_mesh_every_device_has_the_kernel_for_its_own_pictures():
    q = jax.random.normal(jax.random.key(0), (8, 256, 1, 8))
    mesh = make_mesh(8, 1)
    kernel = functools.partial(attention_of_splash, interpret=True)
    with jax.numpy_rank_promotion("allow"), jax.numpy_dtype_promotion("standard"), jax.set_mesh(mesh):
        # A CPU's interpreter would be split by XLA itself; a TPU's kernel cannot be.
        assert "shard_map" in str(jax.make_jaxpr(kernel)(q, q, q))
        compiled = jax.jit(kernel).lower(q, q, q).compile()
        found = compiled(q, q, q)
    assert "all-gather" not in compiled.as_text()
    np.testing.assert_allclose(found, dot_product_attention(q, q, q, "library"), atol=5e-6)


@pytest.mark.parametrize(("data", "sums"), [(8, False), (4, True)])
def test_gradients_on_a_mesh_are_summed_over_the_chips_that_see_the_same_pictures(data, sums):
    """Where there are none, a sum over one chip would be a copy of all that it has."""
    q, weights = jax.random.normal(jax.random.key(0), (2, 8, 256, 1, 8))

    def gradient(attend):
        return jax.grad(lambda q: jnp.sum(weights * attend(q, q, q)))

    kernel = gradient(functools.partial(attention_of_splash, interpret=True))
    with jax.numpy_rank_promotion("allow"), jax.numpy_dtype_promotion("standard"):
        with jax.set_mesh(make_mesh(data, 8 // data)):
            assert ("psum" in str(jax.make_jaxpr(kernel)(q))) == sums
            found = jax.jit(kernel)(q)
        expected = gradient(lambda *x: dot_product_attention(*x, "library"))(q)
    np.testing.assert_allclose(found, expected, atol=2e-5)


def test_without_a_mesh_a_program_over_several_tpus_has_no_kernel():
    q = jnp.zeros((8, 256, 1, 8), jnp.bfloat16)
    attend = functools.partial(dot_product_attention, how="splash")
    with jax.numpy_rank_promotion("allow"), jax.numpy_dtype_promotion("standard"):
        assert "pallas_call" not in str(jax.make_jaxpr(attend)(q, q, q))  # 8 devices here
        with jax.set_mesh(make_mesh(8, 1)):
            assert "pallas_call" in str(jax.make_jaxpr(attend)(q, q, q))


def test_texts_have_the_library_s_attention_on_accelerators():
    q = jnp.zeros((2, 5, 1, 8), jnp.bfloat16)
    attend = functools.partial(dot_product_attention, how="all_heads", causal=True)
    with jax.numpy_dtype_promotion("standard"):
        program = jax.jit(attend).trace(q, q, q).lower(lowering_platforms=("cuda",)).as_text()
    # Scores in float32 from the product on: those of a CPU are rounded to bfloat16 first.
    assert "-> tensor<2x1x5x5xf32>" in program
    assert "-> tensor<2x1x5x5xbf16>" not in program.split("dot_general", 1)[1].split("\n", 1)[0]


GPU_PROGRAM = """
import functools, sys, jax, jax.numpy as jnp
jax.config.update("jax_platforms", "cpu")
from larvseg_jax.compile_check.cudnn import cudnn_of
from larvseg_jax.compile_check.target import open_target, target_mesh
from larvseg_jax.devices.mesh import batch_sharding
from larvseg_jax.models.attention import dot_product_attention
target = open_target(sys.argv[1])
mesh, _ = target_mesh(target, 2, 1)
x = jax.ShapeDtypeStruct((4, 1026, 12, 64), jnp.bfloat16, sharding=batch_sharding(mesh))
def loss(*x):
    return jnp.sum(jnp.square(dot_product_attention(*x, "cudnn", real=1025).astype(jnp.float32)))
with cudnn_of(target), jax.set_mesh(mesh):
    print(jax.jit(jax.grad(loss, (0, 1, 2))).lower(x, x, x).compile().as_text())
"""


@pytest.mark.slow
@pytest.mark.skipif(importlib.util.find_spec("jax_cuda12_plugin") is None, reason="the GPU's compiler is not installed")
@pytest.mark.parametrize("topology", ["h100:1x2", "b200:1x2"])
def test_the_program_compiled_for_a_gpu_has_the_fused_calls_on_its_own_pictures(topology):
    words = [sys.executable, "-c", GPU_PROGRAM, topology]
    done = subprocess.run(words, cwd=REPOSITORY, capture_output=True, text=True, check=True)
    assert 'custom_call_target="__cudnn$fmhaSoftmax"' in done.stdout
    assert 'custom_call_target="__cudnn$fmhaSoftmaxBackward"' in done.stdout
    assert "bf16[2,1026,12,64]" in done.stdout
    assert "1025,1025]" not in done.stdout
    assert "all-gather" not in done.stdout
