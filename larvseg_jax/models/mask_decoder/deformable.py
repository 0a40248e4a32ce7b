"""Attention to a few points of maps of several sizes (Zhu et al. 2021, Deformable DETR, equation 3).

Letters: b pictures, n elements of all maps one after another, q queries, k heads, e features of a head, l maps
(levels), p points of a map.
"""

from __future__ import annotations

import math
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from flax import linen as nn
from jaxtyping import Array, Float, Int

from larvseg_jax.models.precision import exact_einsum

Sides = tuple[tuple[int, int], ...]
"""(height, width) of each map."""


class DeformableAttention(nn.Module):
    """Each query draws from points around its own place, on every map; where they are and what they count is learned.

    At first the offsets of a head are a row of points, each head's in a direction of its own, that count alike.

    Attributes:
      num_heads: they share the width.
      points: of a head on each map.
    """

    num_heads: int
    points: int

    @nn.compact
    def __call__(
        self,
        queries: Float[Array, "b q d"],
        places: Float[np.ndarray, "q 2"],
        values: Float[Array, "b n d"],
        sides: Sides,
    ) -> Float[Array, "b q d"]:
        """Queries with their places (x, y), in widths and heights of the maps, 0 .. 1; offsets are in elements."""
        (b, q, d), k, levels, p = queries.shape, self.num_heads, len(sides), self.points
        xavier, zeros = nn.initializers.xavier_uniform(), nn.initializers.zeros
        value = nn.Dense(d, kernel_init=xavier, name="values")(values).reshape(b, -1, k, d // k)

        def directions(_key, shape, dtype=jnp.float32) -> Array:
            return jnp.asarray(first_offsets(k, levels, p).reshape(shape), dtype)

        offsets = nn.Dense(k * levels * p * 2, kernel_init=zeros, bias_init=directions, name="offsets")(queries)
        sizes = np.array([(w, h) for h, w in sides], np.float32)
        steps = offsets.reshape(b, q, k, levels, p, 2) / sizes[None, None, None, :, None]
        locations = jnp.asarray(places)[None, :, None, None, None] + steps
        weights = nn.Dense(k * levels * p, kernel_init=zeros, name="weights")(queries).reshape(b, q, k, levels * p)
        weights = jax.nn.softmax(weights).reshape(b, q, k, levels, p)
        mixed = sampled(value, sides, locations, weights)
        return nn.Dense(d, kernel_init=xavier, name="mixed")(mixed)


def first_offsets(heads: int, levels: int, points: int) -> Float[np.ndarray, "{heads} {levels} {points} 2"]:
    """Point i of head h, (x, y): i + 1 steps at the angle 2 pi h / heads, the longer side of a step being 1."""
    angle = np.arange(heads) * (2 * math.pi / heads)
    step = np.stack([np.cos(angle), np.sin(angle)], -1)
    step /= np.abs(step).max(-1, keepdims=True)
    offsets = step[:, None, None] * np.arange(1, points + 1)[:, None]
    return np.broadcast_to(offsets, (heads, levels, points, 2)).astype(np.float32)


def sampled(
    value: Float[Array, "b n k e"],
    sides: Sides,
    locations: Float[Array, "b q k l p 2"],
    weights: Float[Array, "b q k l p"],
) -> Float[Array, "b q k*e"]:
    """Weighted sums of the maps at locations (x, y) in 0 .. 1, between elements bilinearly, beyond the border zero.

    What is gathered, 4 l p vectors for each query and head, is not kept for the gradient but gathered again.
    """
    return jax.checkpoint(_sampled, static_argnums=1)(value, sides, locations, weights)


def _sampled(value: Array, sides: Sides, locations: Array, weights: Array) -> Array:
    b, _, k, e = value.shape
    q = locations.shape[1]
    by_head = value.transpose(0, 2, 1, 3)
    gather = jax.vmap(jax.vmap(lambda vectors, index: vectors.at[index].get(mode="promise_in_bounds")))
    mixed, first = jnp.zeros((b, k, q, e), value.dtype), 0
    for level, (height, width) in enumerate(sides):
        corners = _corners(locations[:, :, :, level], height, width)
        index, share = (x.transpose(0, 2, 1, 3, 4) for x in corners)
        of_map = gather(by_head[:, :, first : first + height * width], index.reshape(b, k, -1))
        counted = share * weights[:, :, :, level].transpose(0, 2, 1, 3)[..., None]
        mixed += exact_einsum("bkqc,bkqce->bkqe", counted.reshape(b, k, q, -1), of_map.reshape(b, k, q, -1, e))
        first += height * width
    return mixed.transpose(0, 2, 1, 3).reshape(b, q, k * e)


class _Corners(NamedTuple):
    """The four elements around a point, and the share of each in it: 0 beyond the border."""

    elements: Int[Array, "b q k p 4"]
    shares: Float[Array, "b q k p 4"]


def _corners(points: Float[Array, "b q k p 2"], height: int, width: int) -> _Corners:
    size = np.array([width, height], np.float32)[None, None, None, None]
    position = points * size - 0.5
    before = jnp.floor(position)
    after = position - before
    # (4, 2): (x, y) of the corner, 0 before the point and 1 after it.
    step = np.array([(0, 0), (1, 0), (0, 1), (1, 1)], np.float32)[None, None, None, None]
    shares = jnp.where(step == 1, after[..., None, :], 1 - after[..., None, :])
    element, last = before[..., None, :] + step, size[..., None, :] - 1
    inside = jnp.all((element >= 0) & (element <= last), -1)
    x, y = jnp.moveaxis(jnp.clip(element, 0, last).astype(jnp.int32), -1, 0)
    return _Corners(y * width + x, jnp.where(inside, shares[..., 0] * shares[..., 1], 0))
