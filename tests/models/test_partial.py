"""A backbone in two parts gives what it gives whole."""

import dataclasses

import jax
import numpy as np
import pytest

from larvseg_jax.models.partial import LastBlocks, StoredTokens, patches_after, tokens_entering
from larvseg_jax.models.vit import VisionTransformer, ViTConfig

VIT = ViTConfig(
    width=16, depth=3, num_heads=2, mlp_dim=32, patch_size=4, image_size=12, drop_path=0.5, layer_norm_epsilon=1e-3
)


@pytest.fixture(scope="module")
def whole():
    """Pictures that are no whole number of patches, fresh parameters, and the patches that come out."""
    pictures = np.random.default_rng(0).standard_normal((2, 18, 11, 3)).astype(np.float32)
    network = VisionTransformer(VIT)
    variables = jax.jit(network.init)(jax.random.key(0), pictures)
    return pictures, variables["params"], np.asarray(jax.jit(network.apply)(variables, pictures).patches)


@pytest.mark.parametrize("block", [1, 2, 3])
def test_the_parts_are_the_whole(whole, block):
    pictures, params, expected = whole
    enter = jax.jit(lambda params, pictures: tokens_entering(block, VIT, "all_heads", params, pictures))
    tokens = jax.device_get(enter(params, pictures))
    assert tokens.leading.shape == (2, 1, 16)
    assert tokens.patches.shape == (2, 5, 3, 16)
    # Of the parameters the second part knows those of its blocks only.
    kept = {f"encoderblock_{i}" for i in range(block, 3)} | {"encoder_norm"}
    own = {"Transformer": {name: x for name, x in params["Transformer"].items() if name in kept}}
    found = jax.jit(LastBlocks(VIT, "all_heads", 0, block).apply)({"params": own}, tokens)
    np.testing.assert_allclose(found, expected, rtol=1e-5, atol=1e-5)
    assert np.abs(expected - np.asarray(tokens.patches)).max() > 0.1  # there is something left to do


def test_any_number_of_leading_tokens_takes_part_and_is_left_out_at_the_end(whole):
    """Copies of the class token weigh more in the attention: the patches change, their number does not."""
    pictures, params, expected = whole
    tokens = jax.device_get(
        jax.jit(lambda params, pictures: tokens_entering(2, VIT, "all_heads", params, pictures))(params, pictures)
    )
    last = LastBlocks(VIT, "all_heads", 0, 2)
    for count in (0, 5):
        more = StoredTokens(tokens.leading[:, :1].repeat(count, axis=1), tokens.patches)
        found = np.asarray(jax.jit(last.apply)({"params": params}, more))
        assert found.shape == expected.shape
        assert 1e-4 < np.abs(found - expected).max() < 3


def test_the_patches_after_a_block_are_those_of_a_network_that_ends_there(whole):
    pictures, params, expected = whole
    found = jax.jit(lambda params, pictures: patches_after((3, 1, 2), VIT, "all_heads", params, pictures))(
        params, pictures
    )
    np.testing.assert_allclose(found[0], expected, rtol=1e-6, atol=1e-6)
    for depth, patches in zip((1, 2), found[1:], strict=True):
        later = {f"encoderblock_{i}" for i in range(depth, 3)}
        kept = {name: x for name, x in params["Transformer"].items() if name not in later}
        short = VisionTransformer(dataclasses.replace(VIT, depth=depth))
        alone = jax.jit(short.apply)({"params": {**params, "Transformer": kept}}, pictures).patches
        np.testing.assert_allclose(patches, alone, rtol=1e-5, atol=1e-5)
        assert np.abs(alone - expected).max() > 0.1


def test_all_blocks_take_one_pass(whole):
    """One GELU for each block, however many are looked at."""
    pictures, params, _ = whole
    traced = jax.make_jaxpr(lambda x: patches_after((1, 2, 3), VIT, "all_heads", params, x))(pictures)
    assert str(traced).count(" erf ") == VIT.depth
