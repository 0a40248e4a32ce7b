"""The category-wise attentive classifier: where in a tagged image its tags really are (docs/method.md, section 6).

    A = sigmoid(norm(S_fg - S_bg))                                              (Eq. 4)

S_fg is a pixel's mean cosine with the memory bank of the tag, S_bg the same for the background classes.
Nothing here carries a gradient. Everything is masks and reductions: no loop over images or labels.

Letters: b images, l label slots, p patches, d feature width, n classes of the stream (columns).
"""

from __future__ import annotations

import dataclasses
import functools
from typing import NamedTuple

import jax
import jax.numpy as jnp
from jax import lax
from jaxtyping import Array, Bool, Float, Int

from larvseg_jax.models.head import STANDARDISE_EPSILON, ClassTable
from larvseg_jax.precision import einsum
from larvseg_jax.resize import bilinear_matrix, resize_bilinear
from larvseg_jax.sharding import sum_over_class_shards


@dataclasses.dataclass(frozen=True)
class CAConfig:
    """Options of the CA-Classifier; see `configs/common.py`."""

    variant: str
    memory_bank_size: int
    foreground_topk: int
    warmup: int
    background_topk: int
    background_threshold: float
    background_mse_threshold: float
    class_block: int
    bank_dtype: str


class MinedBackground(NamedTuple):
    """Background of single-label images, found among all classes.

    Attributes:
      mean: mean bank vector of the classes kept.
      kept: how many were kept; 0 means that no background was found.
      candidates: how many passed the score threshold, before the test of difference.
    """

    mean: Float[Array, "b d"]
    kept: Float[Array, " b"]
    candidates: Float[Array, " b"]


def tag_scores(patches: Float[Array, "b p d"], table: ClassTable, tags: Int[Array, "b l"]) -> Float[Array, "b l p"]:
    """Raw cosine of every pixel with the image's tags; rows of empty slots mean nothing."""
    return _similarity(patches, table.vectors[jnp.maximum(tags, 0)])


def attention_map(
    patches: Float[Array, "b p d"],
    label_means: Float[Array, "b l d"],
    present: Bool[Array, "b l"],
    mined: MinedBackground,
) -> Float[Array, "b l p"]:
    """norm(S_fg - S_bg) on the patch grid for all pairs; `label_means` are the tags' bank means.

    Two tags or more: the background of one is the mean of the others, whatever the state of their
    bank. One tag: the mined background, or 1 - S_fg where none was found.
    """
    foreground = _similarity(patches, label_means)
    labels = jnp.sum(present, axis=1)[:, None, None]
    all_labels = jnp.sum(jnp.where(present[..., None], foreground, 0.0), axis=1, keepdims=True)
    others = (all_labels - foreground) / jnp.maximum(labels - 1, 1).astype(foreground.dtype)
    found = _similarity(patches, mined.mean[:, None])
    alone = jnp.where(mined.kept[:, None, None] > 0, found, 1.0 - foreground)
    difference = foreground - jnp.where(labels > 1, others, alone)
    centred = difference - jnp.mean(difference, axis=-1, keepdims=True)
    return centred / jnp.sqrt(jnp.mean(jnp.square(centred), axis=-1, keepdims=True) + STANDARDISE_EPSILON)


def attention_pooling(
    attention: Float[Array, "b l p"], grid: tuple[int, int], size: tuple[int, int]
) -> Float[Array, "b l p"]:
    """The map upsampled to the loss grid, its sigmoid, in this order (method 6.6), carried back to the patches.

    The same as `losses.pooling_weights` of the sigmoid; in one function because the maps of the loss grid, the
    largest arrays here, are made and used with their rows in front, which spares turning them round twice.
    """
    rows, columns = bilinear_matrix(grid[0], size[0]), bilinear_matrix(grid[1], size[1])
    wide = einsum("nhw,Ww->hnW", attention.reshape(-1, *grid), columns)
    weights = jax.nn.sigmoid(einsum("Hh,hnW->HnW", rows, wide)) / (size[0] * size[1])
    return einsum("hnW,Ww->nhw", einsum("Hh,HnW->hnW", rows, weights), columns).reshape(attention.shape)


def mine_background(
    patches: Float[Array, "b p d"],
    table: ClassTable,
    class_means: Float[Array, "n d"],
    label: Int[Array, " b"],
    foreground: Float[Array, "b p"],
    config: CAConfig,
) -> MinedBackground:
    """Background classes of images with the single tag `label` (method 6.5), `class_means` their banks.

    A class is a candidate if its `background_topk` best pixels score over the threshold, and is kept if
    its bank-score map differs enough from the foreground's. A class with an empty bank never is
    (`Original:` it may be, as noise). Every device walks its own classes in blocks: memory is
    b * p * class_block, and only the sums over the classes kept are exchanged.
    """
    columns = jnp.arange(table.vectors.shape[0], dtype=label.dtype)
    classes = (table.vectors, class_means, table.multiplicity, columns)
    mine = functools.partial(_mined_sums, config)
    total = sum_over_class_shards(mine, (patches, label, foreground), classes)
    return total._replace(mean=total.mean / jnp.maximum(total.kept, 1.0)[:, None])


def _mined_sums(
    config: CAConfig, pictures: tuple[Array, Array, Array], classes: tuple[Array, Array, Array, Array]
) -> MinedBackground:
    """What the given classes contribute: `mean` is still the sum of their bank means."""
    patches, label, foreground = pictures
    blocks = jax.tree.map(lambda x: _in_blocks(x, min(config.class_block, x.shape[0])), classes)
    foreground_map = _standardised_unbiased(foreground)

    def mine(found: MinedBackground, block: tuple[Array, Array, Array, Array]) -> tuple[MinedBackground, None]:
        vectors, means, multiplicity, column = block
        scores = einsum("bpd,kd->bkp", patches, vectors)
        best, _ = lax.top_k(scores, config.background_topk)
        filled = jnp.any(means != 0.0, axis=-1) & (multiplicity > 0)
        candidate = jnp.mean(best, axis=-1) > config.background_threshold
        candidate &= filled[None] & (column[None] != label[:, None])
        maps = _standardised_unbiased(einsum("bpd,kd->bkp", patches, means))
        mse = jnp.mean(jnp.square(foreground_map[:, None] - maps), axis=-1)
        kept = candidate & (mse > config.background_mse_threshold)
        copies = jnp.where(kept, multiplicity[None], 0.0)
        return MinedBackground(
            found.mean + einsum("bk,kd->bd", copies, means),
            found.kept + jnp.sum(copies, axis=1),
            found.candidates + jnp.sum(jnp.where(candidate, multiplicity[None], 0.0), axis=1),
        ), None

    b, _, d = patches.shape
    nothing = MinedBackground(jnp.zeros((b, d)), jnp.zeros(b), jnp.zeros(b))
    total, _ = lax.scan(mine, nothing, blocks)
    return total


def pseudo_region(
    scores: Float[Array, "b l p"], grid: tuple[int, int], size: tuple[int, int]
) -> tuple[Float[Array, "b l H W"], Bool[Array, "b l"]]:
    """Single-image variant 7a: pixels whose upsampled score exceeds mean + std over the image.

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


def _similarity(patches: Float[Array, "b p d"], vectors: Float[Array, "b l d"]) -> Float[Array, "b l p"]:
    return einsum("bpd,bld->blp", patches, vectors)


def _standardised_unbiased(maps: Float[Array, "*batch p"]) -> Float[Array, "*batch p"]:
    """Maps minus their mean over their unbiased standard deviation; an empty bank's flat map becomes 0."""
    centred = maps - jnp.mean(maps, axis=-1, keepdims=True)
    std = jnp.std(maps, axis=-1, keepdims=True, ddof=1)
    return centred / jnp.where(std > 0.0, std, 1.0)


def _in_blocks(x: Array, block: int) -> Array:
    """(n, ...) -> (blocks, block, ...), filled up with zeros (multiplicity 0: never a candidate)."""
    extra = -x.shape[0] % block
    padded = jnp.pad(x, ((0, extra), *((0, 0),) * (x.ndim - 1)))
    return padded.reshape(-1, block, *x.shape[1:])
