"""Maps read at points: bilinear samples of logits and of masks, and points where a mask is least certain.

A point is (x, y) in [0, 1] of the picture's width and height, as in PointRend. Pixels are squares with their values in
the centre, and everything outside the map is 0: PyTorch's grid_sample with align_corners=False.
"""

from __future__ import annotations

import functools
from typing import NamedTuple

import jax
import jax.numpy as jnp
from jax import lax
from jaxtyping import Array, Float, Int

from larvseg_jax.models.precision import precise_einsum
from larvseg_jax.vocabulary import IGNORE_LABEL


class Neighbours(NamedTuple):
    """The four pixels around each point.

    Attributes:
      pixel: index in the flattened map; of pixels outside that of the nearest one inside.
      weight: in the bilinear mean; 0 outside.
    """

    pixel: Int[Array, "*batch p 4"]
    weight: Float[Array, "*batch p 4"]


def neighbours(points: Float[Array, "*batch p 2"], size: tuple[int, int]) -> Neighbours:
    """The pixels that points lie between, on a map of `size` = (height, width)."""
    height, width = size
    x, y = points[..., 0] * width - 0.5, points[..., 1] * height - 0.5
    left, top = jnp.floor(x), jnp.floor(y)
    columns = jnp.stack([left, left + 1, left, left + 1], -1)
    rows = jnp.stack([top, top, top + 1, top + 1], -1)
    weight = (1 - jnp.abs(x[..., None] - columns)) * (1 - jnp.abs(y[..., None] - rows))
    inside = (columns >= 0) & (columns < width) & (rows >= 0) & (rows < height)
    column = jnp.clip(columns, 0, width - 1).astype(jnp.int32)
    row = jnp.clip(rows, 0, height - 1).astype(jnp.int32)
    return Neighbours(row * width + column, jnp.where(inside, weight, 0.0))


def sample_maps(maps: Float[Array, "*batch m h w"], points: Float[Array, "*batch p 2"]) -> Float[Array, "*batch m p"]:
    """The values of `m` maps at points that they share."""
    found = neighbours(points, (maps.shape[-2], maps.shape[-1]))

    def values_at(flat: Float[Array, "m n"], pixel: Int[Array, "p 4"]) -> Float[Array, "m p 4"]:
        return flat[:, pixel]

    for _ in maps.shape[:-3]:  # axis by axis: joined, they could not stay sharded
        values_at = jax.vmap(values_at)
    values = values_at(maps.reshape(*maps.shape[:-2], -1), found.pixel)
    return jnp.sum(values * found.weight[..., None, :, :], axis=-1)


def sample_features(features: Float[Array, "b h w e"], points: Float[Array, "b p 2"]) -> Float[Array, "b p e"]:
    """The features of each picture at points. A mask's logits there are their products with its vector.

    Vectors lie in memory as wholes, where the values of many maps at a point lie scattered.
    """
    found = neighbours(points, (features.shape[1], features.shape[2]))
    near = jax.vmap(lambda flat, pixel: flat[pixel])(
        features.reshape(len(features), -1, features.shape[-1]), found.pixel
    )
    return jnp.sum(near * found.weight[..., None], axis=-2)


def sample_own(maps: Float[Array, "*batch m h w"], points: Float[Array, "*batch m p 2"]) -> Float[Array, "*batch m p"]:
    """The values of each map at points of its own.

    On TPUs by products: to gather so many single values, the compiler for them reckons with a whole map for each.
    """

    def by_gathers(maps: Float[Array, "*batch m h w"], points: Float[Array, "*batch m p 2"]) -> Array:
        return sample_maps(maps[..., None, :, :], points)[..., 0, :]

    # What the backward pass needs is made anew: else it would be kept of both ways.
    return lax.platform_dependent(maps, points, tpu=by_products, default=jax.checkpoint(by_gathers))


def by_products(maps: Float[Array, "*batch m h w"], points: Float[Array, "*batch m p 2"]) -> Float[Array, "*batch m p"]:
    """The same by matrices of the weights along either axis, one of the m maps after the other."""

    @jax.checkpoint
    def values(given: tuple[Float[Array, "*batch h w"], Float[Array, "*batch p 2"]]) -> Float[Array, "*batch p"]:
        one, at = given
        rows, columns = _hats(at[..., 1], one.shape[-2]), _hats(at[..., 0], one.shape[-1])
        return jnp.sum(precise_einsum("...ph,...hw->...pw", rows, one) * columns, axis=-1)

    found = lax.map(values, (jnp.moveaxis(maps, -3, 0), jnp.moveaxis(points, -3, 0)))
    return jnp.moveaxis(found, 0, -2)


def _hats(at: Float[Array, "*batch p"], n: int) -> Float[Array, "*batch p {n}"]:
    """Weights of n pixels in the linear mean at places in [0, 1]; what is outside weighs nothing."""
    return jnp.maximum(
        1 - jnp.abs((at * n - 0.5)[..., None] - jnp.arange(n, dtype=at.dtype).reshape(*(1,) * at.ndim, n)), 0.0
    )


def sample_masks(
    label: Int[Array, "b h w"], labels: Int[Array, "*outputs b k"], points: Float[Array, "*outputs b #k p 2"]
) -> Float[Array, "*outputs b k p"]:
    """The binary masks of some labels at points, soft along borders; no mask is ever made.

    Args:
      label: a label of each pixel; IGNORE_LABEL is in no mask.
      labels: whose masks; that of IGNORE_LABEL is 0 everywhere.
      points: of each mask, or (with an axis of 1 in its place) the same for all masks of a picture.
    """
    return lax.platform_dependent(label, labels, points, tpu=_masks_by_products, default=_masks_by_gathers)


def _masks_by_gathers(
    label: Int[Array, "b h w"], labels: Int[Array, "*outputs b k"], points: Float[Array, "*outputs b #k p 2"]
) -> Float[Array, "*outputs b k p"]:
    found = neighbours(points, (label.shape[1], label.shape[2]))
    picture = labels.ndim - 2
    near = jax.vmap(lambda flat, at: flat[at], (0, picture), picture)(label.reshape(len(label), -1), found.pixel)
    own = (near == labels[..., None, None]) & (labels[..., None, None] != IGNORE_LABEL)
    return jnp.sum(jnp.where(own, found.weight, 0.0), axis=-1)


def _masks_by_products(
    label: Int[Array, "b h w"], labels: Int[Array, "*outputs b k"], points: Float[Array, "*outputs b #k p 2"]
) -> Float[Array, "*outputs b k p"]:
    of_class = labels[..., None, None]
    pixels = jnp.broadcast_to(label[:, None], (*labels.shape, *label.shape[1:]))
    masks = (pixels == of_class) & (of_class != IGNORE_LABEL)
    own = jnp.broadcast_to(points, (*labels.shape, *points.shape[-2:]))
    return by_products(masks.astype(points.dtype), own)


def sample_labelled(
    label: Int[Array, "b h w"], points: Float[Array, "*outputs b k p 2"]
) -> Float[Array, "*outputs b k p"]:
    """How much of each point lies on pixels that have a label, in [0, 1]: their one mask."""
    any_label = jnp.where(label == IGNORE_LABEL, IGNORE_LABEL, 0)
    return sample_masks(any_label, jnp.zeros(points.shape[:-2], label.dtype), points)


def labels_in(label: Int[Array, "b h w"], classes: int, slots: int) -> Int[Array, "b {slots}"]:
    """The labels of each picture, `slots` at most, those of the most pixels first, then IGNORE_LABEL.

    Args:
      label: below `classes`, or IGNORE_LABEL.
      classes: how many labels there are.
      slots: entries of the result.
    """
    length = max(classes, slots)

    def pixels_of(flat: Int[Array, " n"]) -> Int[Array, " c"]:
        return jnp.zeros(length, jnp.int32).at[jnp.where(flat < 0, length, flat)].add(1, mode="drop")

    counts = jax.vmap(pixels_of)(label.reshape(len(label), -1))
    pixels, labels = lax.top_k(counts, slots)
    return jnp.where(pixels > 0, labels, IGNORE_LABEL)


def least_certain_points(
    logits: Float[Array, "*batch h w"],
    candidates: Float[Array, "*batch n 2"],
    anywhere: Float[Array, "*batch r 2"],
    points: int,
) -> Float[Array, "*batch {points} 2"]:
    """Of `candidates` those where a mask's logit is nearest to 0, and `anywhere` after them: `points` in all.

    Both are uniform draws. Mask2Former: candidates 3 `points`, anywhere a quarter of `points`. No gradient.
    """
    values = sample_own(lax.stop_gradient(logits), candidates)
    sort, choose = (functools.partial(f, points=points - anywhere.shape[-2]) for f in (sorted_to_zero, nearest_to_zero))
    chosen = lax.platform_dependent(values, candidates, tpu=sort, default=choose)
    return jnp.concatenate([chosen, anywhere], axis=-2)


def nearest_to_zero(
    values: Float[Array, "*batch n"], candidates: Float[Array, "*batch n 2"], points: int
) -> Float[Array, "*batch {points} 2"]:
    """The candidates of the smallest values, their sign left out, in this order."""
    _, chosen = lax.top_k(-jnp.abs(values), points)
    return jnp.take_along_axis(candidates, chosen[..., None], axis=-2)


def sorted_to_zero(
    values: Float[Array, "*batch n"], candidates: Float[Array, "*batch n 2"], points: int
) -> Float[Array, "*batch {points} 2"]:
    """The same without gathers, for TPUs: coordinates are sorted along."""
    _, x, y = lax.sort((jnp.abs(values), candidates[..., 0], candidates[..., 1]), num_keys=1)
    return jnp.stack([x, y], axis=-1)[..., :points, :]
