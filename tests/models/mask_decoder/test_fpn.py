"""The pyramid on a plain map and the pixel decoder without attention, beside loops over pixels."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from larvseg_jax.models.mask_decoder.fpn import FpnPixelDecoder
from larvseg_jax.models.mask_decoder.pyramid import FeaturePyramid, Upscaling

WIDTH, MASK_WIDTH = 32, 6


@pytest.mark.parametrize(
    ("grid", "sides"),
    [((8, 8), [(32, 32), (16, 16), (8, 8), (4, 4)]), ((3, 5), [(12, 20), (6, 10), (3, 5), (2, 3)])],
)
def test_maps_have_a_quarter_half_one_and_two_patches_of_stride(grid, sides):
    shapes = jax.eval_shape(
        lambda x: FeaturePyramid(WIDTH).init_with_output(jax.random.key(0), x)[0], jnp.zeros((2, *grid, 12))
    )
    assert [x.shape for x in shapes] == [(2, *side, WIDTH) for side in sides]


def test_upscaling_by_hand():
    rng = np.random.default_rng(0)
    x, kernel = rng.normal(size=(2, 3, 4, 5)).astype(np.float32), rng.normal(size=(5, 2, 2, 7)).astype(np.float32)
    bias = rng.normal(size=(2, 2, 7)).astype(np.float32)
    expected = np.zeros((2, 6, 8, 7))
    for row, column in np.ndindex(6, 8):
        above, left = row % 2, column % 2
        expected[:, row, column] = x[:, row // 2, column // 2] @ kernel[:, above, left] + bias[above, left]
    found = Upscaling(7).apply({"params": {"kernel": {"kernel": kernel, "bias": bias}}}, jnp.asarray(x))
    np.testing.assert_allclose(found, expected, atol=1e-5)


def test_pixel_decoder_by_hand():
    """Maps of 4 x 4, 2 x 3 (an upscaling that is no factor), 1 x 2 and 1 x 1: the scales are the coarsest three."""
    rng = np.random.default_rng(1)
    sides, widths = [(4, 4), (2, 3), (1, 2), (1, 1)], (3, 4, 5, 6)
    maps = [rng.normal(size=(2, *side, c)).astype(np.float32) for side, c in zip(sides, widths, strict=True)]
    model = FpnPixelDecoder(WIDTH, MASK_WIDTH)
    given = tuple(map(jnp.asarray, maps))
    fresh = jax.jit(model.init)(jax.random.key(0), given)["params"]
    params = jax.tree.map(lambda x: rng.normal(size=x.shape).astype(np.float32) / len(x) ** 0.5, fresh)
    found = jax.jit(model.apply)({"params": params}, given)
    decoded: list[np.ndarray] = []
    for i, x in enumerate(reversed(maps)):
        if i:
            lateral = normed(convolved(x, params[f"lateral_{i}"]), params[f"lateral_norm_{i}"])
            (h, w), coarse = x.shape[1:3], decoded[-1]
            for row, column in np.ndindex(h, w):
                lateral[:, row, column] += coarse[:, row * coarse.shape[1] // h, column * coarse.shape[2] // w]
            x = lateral
        x = normed(convolved(x, params[f"output_{i}"]), params[f"output_norm_{i}"])
        decoded.append(np.maximum(x, 0))
    for ours, expected in zip(found.scales, decoded[:3], strict=True):
        np.testing.assert_allclose(ours, expected, atol=1e-4)
    np.testing.assert_allclose(found.mask_features, convolved(decoded[3], params["mask_features"]), atol=1e-4)


def convolved(x, params) -> np.ndarray:
    kernel = np.asarray(params["kernel"], np.float64)
    (b, h, w, _), half = x.shape, kernel.shape[0] // 2
    padded = np.pad(x, ((0, 0), (half, half), (half, half), (0, 0)))
    out = np.zeros((b, h, w, kernel.shape[-1])) + params.get("bias", 0)
    for row, column in np.ndindex(h, w):
        window = padded[:, row : row + 2 * half + 1, column : column + 2 * half + 1]
        out[:, row, column] += np.einsum("bijc,ijcd->bd", window, kernel)
    return out


def normed(x, params) -> np.ndarray:
    """32 groups of one feature each, over the pixels of a picture."""
    mean, variance = x.mean((1, 2), keepdims=True), x.var((1, 2), keepdims=True)
    return (x - mean) / np.sqrt(variance + 1e-5) * params["scale"] + params["bias"]
