"""Attention to a few points of maps of several sizes (Zhu et al. 2021, Deformable DETR, equation 3).

Letters: b pictures, n elements of all maps one after another, q queries, k heads, e features of a head, l maps
(levels), p points of a map.
"""

from __future__ import annotations

import functools
import math
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from flax import linen as nn
from jax import lax
from jaxtyping import Array, Float, Int

from larvseg_jax.models.precision import precise_einsum

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

    One head after another, and for the gradient again: 4 l p vectors are gathered for each query.
    """

    @jax.checkpoint
    def of_head(head: tuple[Array, Array, Array]) -> Float[Array, "b q e"]:
        return _sampled_of_head(head[0], sides, head[1], head[2])

    mixed = lax.map(of_head, tuple(jnp.moveaxis(x, 2, 0) for x in (value, locations, weights)))
    return jnp.moveaxis(mixed, 0, 2).reshape(*weights.shape[:2], -1)


def _sampled_of_head(
    value: Float[Array, "b n e"],
    sides: Sides,
    locations: Float[Array, "b q l p 2"],
    weights: Float[Array, "b q l p"],
) -> Float[Array, "b q e"]:
    ends = np.cumsum([height * width for height, width in sides])[:-1]
    mixed = []
    for i, (of_map, side) in enumerate(zip(jnp.split(value, ends, 1), sides, strict=True)):
        elements, shares = _corners(locations[:, :, i], *side)
        counted = shares * weights[:, :, i, :, None]
        vectors = jax.vmap(lambda of_map, index: of_map.at[index].get(mode="promise_in_bounds"))(of_map, elements)
        mixed.append(precise_einsum("bqpc,bqpce->bqe", counted, vectors))
    return functools.reduce(jnp.add, mixed)


class _Corners(NamedTuple):
    """The four elements around a point, and the share of each in it: 0 beyond the border."""

    elements: Int[Array, "b q p 4"]
    shares: Float[Array, "b q p 4"]


def _corners(points: Float[Array, "b q p 2"], height: int, width: int) -> _Corners:
    size = np.array([width, height], np.float32)[None, None, None]
    position = points * size - 0.5
    before = jnp.floor(position)
    after = position - before
    # (4, 2): (x, y) of the corner, 0 before the point and 1 after it.
    step = np.array([(0, 0), (1, 0), (0, 1), (1, 1)], np.float32)[None, None, None]
    shares = jnp.where(step == 1, after[..., None, :], 1 - after[..., None, :])
    element, last = before[..., None, :] + step, size[..., None, :] - 1
    inside = jnp.all((element >= 0) & (element <= last), -1)
    x, y = jnp.moveaxis(jnp.clip(element, 0, last).astype(jnp.int32), -1, 0)
    return _Corners(y * width + x, jnp.where(inside, shares[..., 0] * shares[..., 1], 0))
