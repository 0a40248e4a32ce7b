"""The single-image variant 7a: a tag pools its logits over the region where it scores high, without a bank.

Letters: b images, l label slots, p = h*w patches, H x W loss grid.
"""

from __future__ import annotations

import jax.numpy as jnp
from jaxtyping import Array, Bool, Float

from larvseg_jax.models.resize import resize_bilinear


def pseudo_region(
    scores: Float[Array, "b l p"], grid: tuple[int, int], size: tuple[int, int]
) -> tuple[Float[Array, "b l H W"], Bool[Array, "b l"]]:
    """Pixels whose upsampled score exceeds mean + std over the image.

    Returns pooling weights whose mean over the loss grid is 1 inside the region, and whether a region
    exists. `Original:` unlabelled pixels are left out, which needs the masks of images that have only tags.
    """
    upsampled = resize_bilinear(scores.reshape(-1, *grid, 1), size).reshape(*scores.shape[:2], *size)
    mean = jnp.mean(upsampled, axis=(-2, -1), keepdims=True)
    std = jnp.std(upsampled, axis=(-2, -1), keepdims=True, ddof=1)
    region = (upsampled > mean + std).astype(scores.dtype)
    pixels = jnp.sum(region, axis=(-2, -1), keepdims=True)
    weights = region * (size[0] * size[1]) / jnp.maximum(pixels, 1.0)
    return weights, pixels[..., 0, 0] > 0
