"""Between the patch grid and the loss grid: maps go up by U, weights come back down by its transpose (method 5.5).

Letters: b images, l label slots, p = h*w patches, H x W loss grid, n = b*l maps.
"""

from __future__ import annotations

from collections.abc import Callable

import jax.numpy as jnp
from jaxtyping import Array, Float

from larvseg_jax.models.precision import precise_einsum
from larvseg_jax.models.resize import bilinear_matrix


def pooling_weights(weights: Float[Array, "b l H W"], grid: tuple[int, int]) -> Float[Array, "b l p"]:
    """w = U^T a / (H W): weights on the loss grid carried back through the bilinear upsampling."""
    size = weights.shape[-2:]
    rows, columns = bilinear_matrix(grid[0], size[0]), bilinear_matrix(grid[1], size[1])
    narrow = precise_einsum("Hh,blHW,Ww->blhw", rows, weights, columns) / (size[0] * size[1])
    return narrow.reshape(*weights.shape[:2], grid[0] * grid[1])


def everywhere(images: int, grid: tuple[int, int], size: tuple[int, int]) -> Float[Array, "b 1 p"]:
    """The pooling weights of L_cls: every position of the loss grid alike."""
    weights = pooling_weights(jnp.ones((1, 1, *size)), grid)
    return jnp.broadcast_to(weights, (images, *weights.shape[1:]))


def up_and_back(
    grid: tuple[int, int], size: tuple[int, int]
) -> tuple[
    Callable[[Float[Array, "b l p"]], Float[Array, "H n W"]], Callable[[Float[Array, "H n W"]], Float[Array, "n p"]]
]:
    """(upsample, carry_back): U, and w = U^T a / (H W) as in `pooling_weights`.

    The maps of the loss grid, the largest arrays of the CA-Classifier, are made and used with their rows in front,
    which spares turning them round twice.
    """
    rows, columns = bilinear_matrix(grid[0], size[0]), bilinear_matrix(grid[1], size[1])

    def upsample(maps: Float[Array, "b l p"]) -> Float[Array, "H n W"]:
        wide = precise_einsum("nhw,Ww->hnW", maps.reshape(-1, *grid), columns)
        return precise_einsum("Hh,hnW->HnW", rows, wide)

    def carry_back(weights: Float[Array, "H n W"]) -> Float[Array, "n p"]:
        narrow = precise_einsum("Hh,HnW->hnW", rows, weights / (size[0] * size[1]))
        return precise_einsum("hnW,Ww->nhw", narrow, columns).reshape(weights.shape[1], grid[0] * grid[1])

    return upsample, carry_back
