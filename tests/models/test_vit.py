"""The backbone against a plain NumPy forward pass; names, sizes, drop path, remat, bfloat16, conv stem."""

import dataclasses
import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import linen as nn
from flax import traverse_util

from larvseg_jax.errors import UserError
from larvseg_jax.models.blocks import DropPath, EncoderBlock
from larvseg_jax.models.vit import VisionTransformer
from larvseg_jax.models.vit_config import ViTConfig

CONFIG = ViTConfig(width=8, depth=3, num_heads=2, mlp_dim=12, patch_size=4, image_size=12)
BLOCK = "Transformer/encoderblock_"


def fresh_shapes(config, images):
    return jax.eval_shape(VisionTransformer(config).init, jax.random.key(0), images)["params"]


def some_params(config, images):
    """Random parameters, away from the zeros and ones that training starts from."""
    rng = np.random.default_rng(1)
    return jax.tree.map(
        lambda x: (0.4 * rng.standard_normal(x.shape) + 0.5 * (len(x.shape) == 1)).astype(np.float32),
        fresh_shapes(config, images),
    )


def forward(config, params, images):
    """Features of the patches."""
    return jax.jit(lambda params, images: VisionTransformer(config).apply({"params": params}, images).patches)(
        params, images
    )


def training_forward(config, seed=0):
    """(params, images) -> features with drop path."""
    key = {"drop_path": jax.random.key(seed)}
    model = VisionTransformer(config)
    return lambda params, images: model.apply({"params": params}, images, train=True, rngs=key).patches


def pictures(*size, count=2):
    return jnp.asarray(np.random.default_rng(2).standard_normal((count, *size, 3)), jnp.float32)


def shapes(params):
    return {name: x.shape for name, x in traverse_util.flatten_dict(params, sep="/").items()}


def layer_norm(x, params, epsilon=1e-6):
    normed = (x - x.mean(-1, keepdims=True)) / np.sqrt(x.var(-1, keepdims=True) + epsilon)
    return normed * params["scale"] + params["bias"]


def numpy_block(x, p, epsilon):
    y = layer_norm(x, p["LayerNorm_0"], epsilon)
    attention = p["MultiHeadDotProductAttention_1"]
    mixed = np.zeros_like(x)
    for head in range(CONFIG.num_heads):
        q, k, v = (y @ attention[n]["kernel"][:, head] + attention[n]["bias"][head] for n in ("query", "key", "value"))
        scores = np.exp(q @ k.T / math.sqrt(q.shape[-1]))
        mixed += scores / scores.sum(-1, keepdims=True) @ v @ attention["out"]["kernel"][head]
    x = x + mixed + attention["out"]["bias"]
    y = (
        layer_norm(x, p["LayerNorm_2"], epsilon) @ p["MlpBlock_3"]["Dense_0"]["kernel"]
        + p["MlpBlock_3"]["Dense_0"]["bias"]
    )
    y = 0.5 * y * (1 + np.vectorize(math.erf)(y / math.sqrt(2)))
    return x + y @ p["MlpBlock_3"]["Dense_1"]["kernel"] + p["MlpBlock_3"]["Dense_1"]["bias"]


def numpy_vit(image, params, epsilon):
    """(class token, patches) of one picture of the stored size, patch by patch, head by head."""
    p = jax.tree.map(lambda x: np.asarray(x, np.float64), params)
    side = CONFIG.patch_size
    tokens = [p["cls"][0, 0]]
    for y in range(0, image.shape[0], side):
        for x in range(0, image.shape[1], side):
            patch = image[y : y + side, x : x + side]
            tokens.append(np.tensordot(patch, p["embedding"]["kernel"], 3) + p["embedding"]["bias"])
    encoder = p["Transformer"]
    x = np.stack(tokens) + encoder["posembed_input"]["pos_embedding"][0]
    for i in range(CONFIG.depth):
        x = numpy_block(x, encoder[f"encoderblock_{i}"], epsilon)
    x = layer_norm(x, encoder["encoder_norm"], epsilon)
    return x[0], x[1:].reshape(image.shape[0] // side, -1, CONFIG.width)


@pytest.mark.parametrize("epsilon", [None, 0.3])
def test_forward_pass_in_numpy(epsilon):
    images = pictures(12, 12)
    params = some_params(CONFIG, images)
    model = VisionTransformer(dataclasses.replace(CONFIG, layer_norm_epsilon=epsilon) if epsilon else CONFIG)
    ours = jax.jit(lambda params, images: model.apply({"params": params}, images))(params, images)
    for picture, cls, patches in zip(np.asarray(images, np.float64), *ours, strict=True):
        expected_cls, expected = numpy_vit(picture, params, epsilon or 1e-6)
        np.testing.assert_allclose(patches, expected, atol=2e-5)
        np.testing.assert_allclose(cls, expected_cls, atol=2e-5)


def test_parameters_have_the_names_and_shapes_of_augreg_files():
    width, heads, mlp, patch, tokens = 8, 2, 12, 4, 10
    expected = {
        "cls": (1, 1, width),
        "embedding/kernel": (patch, patch, 3, width),
        "embedding/bias": (width,),
        "Transformer/posembed_input/pos_embedding": (1, tokens, width),
        "Transformer/encoder_norm/scale": (width,),
        "Transformer/encoder_norm/bias": (width,),
    }
    for i in range(3):
        for norm in ("LayerNorm_0", "LayerNorm_2"):
            expected |= {f"{BLOCK}{i}/{norm}/{name}": (width,) for name in ("scale", "bias")}
        attention = f"{BLOCK}{i}/MultiHeadDotProductAttention_1"
        for name in ("query", "key", "value"):
            expected[f"{attention}/{name}/kernel"] = (width, heads, width // heads)
            expected[f"{attention}/{name}/bias"] = (heads, width // heads)
        expected[f"{attention}/out/kernel"] = (heads, width // heads, width)
        expected[f"{attention}/out/bias"] = (width,)
        expected[f"{BLOCK}{i}/MlpBlock_3/Dense_0/kernel"] = (width, mlp)
        expected[f"{BLOCK}{i}/MlpBlock_3/Dense_0/bias"] = (mlp,)
        expected[f"{BLOCK}{i}/MlpBlock_3/Dense_1/kernel"] = (mlp, width)
        expected[f"{BLOCK}{i}/MlpBlock_3/Dense_1/bias"] = (width,)
    assert shapes(fresh_shapes(CONFIG, pictures(12, 12))) == expected


@pytest.mark.parametrize("stem", ["patch", "conv"])
def test_any_picture_size_is_padded_with_zeros_to_whole_patches(stem):
    images = pictures(9, 14)
    config = dataclasses.replace(CONFIG, stem=stem)
    params = some_params(config, images)
    padded = jnp.pad(images, ((0, 0), (0, 3), (0, 2), (0, 0)))
    ours = forward(config, params, images)
    assert ours.shape == (2, 3, 4, 8)
    np.testing.assert_allclose(ours, forward(config, params, padded), atol=1e-5)


def test_the_position_embedding_is_resized_even_for_as_many_tokens_in_another_shape():
    config = dataclasses.replace(CONFIG, image_size=8, depth=0)
    params = some_params(config, pictures(8, 8))
    grid = params["Transformer"]["posembed_input"]["pos_embedding"][0, 1:].reshape(2, 2, 8)
    params["embedding"]["bias"] = np.zeros(8, np.float32)
    ours = forward(config, params, jnp.zeros((1, 4, 16, 3)))
    # Cubic convolution (a = -0.75) from 2 to 1 samples is the mean; from 2 to 4 by the kernel's values.
    outer, inner = np.array([1.10546875, -0.10546875]), np.array([0.7734375, 0.2265625])
    weights = np.stack([outer, inner, inner[::-1], outer[::-1]])
    row = weights @ grid.mean(0)
    expected = layer_norm(row, params["Transformer"]["encoder_norm"])
    np.testing.assert_allclose(ours[0, 0], expected, atol=1e-5)


def test_drop_path_drops_whole_branches_and_scales_the_others():
    x = jnp.ones((4000, 2, 3))
    layer = DropPath(0.3)
    out = layer.apply({}, x, True, rngs={"drop_path": jax.random.key(0)})
    of_sample = np.asarray(out[:, 0, 0])
    np.testing.assert_array_equal(out, np.broadcast_to(of_sample[:, None, None], out.shape))
    np.testing.assert_allclose(np.unique(of_sample), [0.0, 1 / 0.7], rtol=1e-6)
    assert abs(np.mean(of_sample == 0) - 0.3) < 5 * math.sqrt(0.3 * 0.7 / 4000)
    np.testing.assert_array_equal(layer.apply({}, x, False), x)


def test_drop_path_is_a_function_of_its_key_and_acts_in_training_only():
    images = pictures(12, 12, count=8)
    config = dataclasses.replace(CONFIG, drop_path=0.5)
    params = some_params(config, images)
    first, second, other = (jax.jit(training_forward(config, seed))(params, images) for seed in (0, 0, 1))
    np.testing.assert_array_equal(first, second)
    assert np.any(first != other)
    np.testing.assert_array_equal(forward(config, params, images), forward(CONFIG, params, images))


def test_drop_path_grows_linearly_with_depth():
    rates = []

    def record(call, args, kwargs, context):
        if isinstance(context.module, EncoderBlock):
            rates.append(context.module.drop_path)
        return call(*args, **kwargs)

    config = dataclasses.replace(CONFIG, depth=5, drop_path=0.2)
    with nn.intercept_methods(record):
        jax.eval_shape(VisionTransformer(config).init, jax.random.key(0), pictures(12, 12))
    np.testing.assert_allclose(rates, [0.0, 0.05, 0.1, 0.15, 0.2])


@pytest.mark.slow
def test_remat_changes_neither_values_nor_gradients():
    plain = dataclasses.replace(CONFIG, drop_path=0.5)
    images = pictures(12, 12)
    params = some_params(plain, images)

    def value_and_gradient(config):
        features = training_forward(config)
        return jax.value_and_grad(lambda params: jnp.sum(jnp.square(features(params, images)[..., ::2])))

    programs = [value_and_gradient(dataclasses.replace(plain, remat=remat)) for remat in (False, True)]
    recomputed = [str(jax.make_jaxpr(program)(params)).count("remat") for program in programs]
    assert recomputed[1] > recomputed[0]
    (value, gradient), (value_remat, gradient_remat) = (jax.jit(program)(params) for program in programs)
    np.testing.assert_allclose(value_remat, value, rtol=1e-6)
    assert jax.tree.structure(gradient) == jax.tree.structure(gradient_remat)
    largest = max(float(jnp.max(jnp.abs(x))) for x in jax.tree.leaves(gradient))
    for a, b in zip(jax.tree.leaves(gradient), jax.tree.leaves(gradient_remat), strict=True):
        np.testing.assert_allclose(b, a, atol=1e-5 * largest)


@pytest.mark.parametrize("stem", ["patch", "conv"])
def test_bfloat16_computes_in_it_and_keeps_float32_parameters(stem):
    images = pictures(12, 12)
    exact = dataclasses.replace(CONFIG, stem=stem)
    rounded = dataclasses.replace(exact, dtype="bfloat16")
    assert {x.dtype for x in jax.tree.leaves(fresh_shapes(rounded, images))} == {jnp.dtype("float32")}
    params = some_params(exact, images)

    def features_and_gradients(params):
        features = VisionTransformer(rounded).apply({"params": params}, images).patches
        return jnp.sum(features[..., 0]), features

    gradients, features = jax.jit(jax.grad(features_and_gradients, has_aux=True))(params)
    assert features.dtype == jnp.float32
    assert {x.dtype for x in jax.tree.leaves(gradients)} == {jnp.dtype("float32")}
    np.testing.assert_array_equal(features, features.astype(jnp.bfloat16).astype(jnp.float32))
    assert 1e-4 < float(jnp.max(jnp.abs(features - forward(exact, params, images)))) < 0.3


@pytest.mark.parametrize("epsilon", [1e-6, 0.3])
def test_the_norms_of_the_conv_stem_have_the_same_epsilon(epsilon):
    config = dataclasses.replace(CONFIG, stem="conv", patch_size=2, image_size=2, depth=0, layer_norm_epsilon=epsilon)
    images = pictures(2, 2, count=1)
    params = some_params(config, images)
    p = jax.tree.map(np.float64, params)
    stem, encoder = p["stem"], p["Transformer"]
    # One 3x3 convolution of stride 2 on a 2x2 picture: its kernel's first 2x2 taps, the rest lies beyond the border.
    x = np.tensordot(np.float64(images[0]), stem["conv_0"]["kernel"][:2, :2], 3) + stem["conv_0"]["bias"]
    x = layer_norm(x, stem["norm_0"], epsilon)
    x = 0.5 * x * (1 + np.vectorize(math.erf)(x / math.sqrt(2))) @ stem["out"]["kernel"] + stem["out"]["bias"]
    x = x + encoder["posembed_input"]["pos_embedding"][0, 1]
    expected = layer_norm(x, encoder["encoder_norm"], epsilon)
    np.testing.assert_allclose(forward(config, params, images)[0, 0, 0], expected, atol=2e-5)


@pytest.mark.parametrize("epsilon", [0.0, -1e-6, math.inf, math.nan])
def test_an_epsilon_that_is_no_positive_number_is_refused(epsilon):
    with pytest.raises(UserError, match="model.layer_norm_epsilon is .*: use a number above 0"):
        dataclasses.replace(CONFIG, layer_norm_epsilon=epsilon)


def test_the_conv_stem_halves_the_grid_with_small_kernels():
    params = fresh_shapes(dataclasses.replace(CONFIG, stem="conv", depth=1), pictures(12, 12))
    stem = {name: shape for name, shape in shapes(params).items() if not name.startswith(("Transformer", "cls"))}
    assert stem == {
        "stem/conv_0/kernel": (3, 3, 3, 4),
        "stem/conv_0/bias": (4,),
        "stem/norm_0/scale": (4,),
        "stem/norm_0/bias": (4,),
        "stem/conv_1/kernel": (3, 3, 4, 8),
        "stem/conv_1/bias": (8,),
        "stem/norm_1/scale": (8,),
        "stem/norm_1/bias": (8,),
        "stem/out/kernel": (8, 8),
        "stem/out/bias": (8,),
    }
