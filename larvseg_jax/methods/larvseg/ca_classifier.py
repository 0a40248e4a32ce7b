"""The category-wise attentive classifier: where in a tagged image its tags really are (docs/method.md, section 6).

    A = sigmoid(upsample(norm(S_fg - S_bg)))                                    (Eq. 4)

S_fg is a pixel's mean cosine with the memory bank of the tag, S_bg the same for the background classes.
Nothing here carries a gradient. Everything is masks and reductions: no loop over images or labels.

Letters: b images, l label slots, p patches, d feature width, n classes of the stream (columns).
"""

from __future__ import annotations

import dataclasses
import functools
from typing import Literal, NamedTuple

import jax
import jax.numpy as jnp
from jax import lax
from jaxtyping import Array, Bool, Float, Int

from larvseg_jax.devices.in_step import sum_over_class_shards
from larvseg_jax.methods.larvseg.loss_grid import up_and_back
from larvseg_jax.models.cosine_head import STANDARDISE_EPSILON, ClassTable
from larvseg_jax.models.precision import precise_einsum
from larvseg_jax.options import Count, CountOrNone


@dataclasses.dataclass(frozen=True)
class CAConfig:
    """The section `method.ca_classifier`."""

    variant: Literal["cross_image", "region", "own_bank"] = "cross_image"  # memory bank; one image only: 7a, 7b
    memory_bank_size: Count = 20  # M, slots per class
    foreground_topk: Count = 20  # K, pixels averaged into one slot
    # Which K: those of the highest score (the paper), or of the highest lead over the photo's other tags, which keeps
    # what comes with a class out of its bank where photos have many tags (docs/method.md, 6.3).
    foreground_by: Literal["score", "lead"] = "score"
    warmup: CountOrNone = 1  # a class is attended once its slots were all filled this often
    background_topk: Count = 5  # single-tag images: pixels whose mean score is held against the threshold
    background_threshold: float = 0.2  # a cosine
    background_mse_threshold: float = 1.0  # mean squared difference of standardised maps
    class_block: Count = 1024  # classes mined at a time
    # Of the slots. Attention maps that are not flat (standard deviation before `norm` over 0.02) then differ by up to
    # 2e-4 with float16, 2e-3 with bfloat16; flatter ones by more, since `norm` enlarges the rounding with the map.
    bank_dtype: Literal["float32", "float16", "bfloat16"] = "float32"


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
    return precise_einsum("bpd,bld->blp", patches, table.vectors[jnp.maximum(tags, 0)])


def foreground_ranking(
    scores: Float[Array, "b l p"], present: Bool[Array, "b l"], config: CAConfig
) -> Float[Array, "b l p"]:
    """By what the K pixels of a tag are chosen (method 6.3): its score, or how far that is above the other tags' best.

    A photo's only tag leads by its score; tags of equal scores, which are of one class, are no rivals of each other.
    Rows of empty slots mean nothing.
    """
    if config.foreground_by == "score":
        return scores
    shown = jnp.where(present[..., None], scores, -jnp.inf)
    best = jnp.max(shown, axis=1, keepdims=True)
    second = jnp.max(jnp.where(shown < best, shown, -jnp.inf), axis=1, keepdims=True)
    rival = jnp.where(shown < best, best, second)
    return scores - jnp.where(jnp.isfinite(rival), rival, 0.0)


def bank_scores(patches: Float[Array, "b p d"], class_means: Float[Array, "b l d"]) -> Float[Array, "b l p"]:
    """S: a pixel's mean cosine with all that the bank holds of a class (Eq. 3); linear, so with the bank's mean."""
    return precise_einsum("bpd,bld->blp", patches, class_means)


def background_scores(
    patches: Float[Array, "b p d"],
    s_fg: Float[Array, "b l p"],
    present: Bool[Array, "b l"],
    mined: MinedBackground,
) -> Float[Array, "b l p"]:
    """S_bg of all pairs.

    Two tags or more: the background of one is the mean of the others, whatever the state of their
    bank. One tag: the mined background, or 1 - S_fg where none was found.
    """
    labels = jnp.sum(present, axis=1)[:, None, None]
    all_labels = jnp.sum(jnp.where(present[..., None], s_fg, 0.0), axis=1, keepdims=True)
    others = (all_labels - s_fg) / jnp.maximum(labels - 1, 1).astype(s_fg.dtype)
    found = bank_scores(patches, mined.mean[:, None])
    alone = jnp.where(mined.kept[:, None, None] > 0, found, 1.0 - s_fg)
    return jnp.where(labels > 1, others, alone)


def norm(maps: Float[Array, "b l p"]) -> Float[Array, "b l p"]:
    """(x - mean) / sqrt(biased variance + 1e-5) over the patches of the image."""
    centred = maps - jnp.mean(maps, axis=-1, keepdims=True)
    return centred / jnp.sqrt(jnp.mean(jnp.square(centred), axis=-1, keepdims=True) + STANDARDISE_EPSILON)


def attention(
    s_fg: Float[Array, "b l p"], s_bg: Float[Array, "b l p"], grid: tuple[int, int], size: tuple[int, int]
) -> Float[Array, "b l p"]:
    """A = sigmoid(upsample(norm(S_fg - S_bg)))   (Eq. 4), on the loss grid, carried back to the patches as weights."""
    upsample, carry_back = up_and_back(grid, size)
    return carry_back(jax.nn.sigmoid(upsample(norm(s_fg - s_bg)))).reshape(s_fg.shape)


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
    count = classes[0].shape[0]
    block = min(config.class_block, count)
    foreground_map = _standardised_unbiased(foreground)

    def mine(i: Int[Array, ""], found: MinedBackground) -> MinedBackground:
        first = jnp.minimum(i * block, count - block)  # the last block begins earlier and skips what it repeats
        vectors, means, multiplicity, column = (lax.dynamic_slice_in_dim(x, first, block) for x in classes)
        multiplicity = jnp.where(first + jnp.arange(block, dtype=jnp.int32) >= i * block, multiplicity, 0.0)
        # Classes in front, as the product leaves them: nothing of this size is transposed.
        scores = precise_einsum("kd,bpd->kbp", vectors, patches)
        own = precise_einsum("kd,bpd->kbp", means, patches)
        # The map of an empty bank is 0 everywhere; asked of the map, the banks are read once less.
        filled = jnp.any(own != 0.0, axis=-1) & (multiplicity > 0)[:, None]
        candidate = mean_of_best(scores, config.background_topk) > config.background_threshold
        candidate &= filled & (column[:, None] != label[None])
        maps = _standardised_unbiased(own)
        mse = jnp.mean(jnp.square(foreground_map[None] - maps), axis=-1)
        kept = candidate & (mse > config.background_mse_threshold)
        copies = jnp.where(kept, multiplicity[:, None], 0.0)
        return MinedBackground(
            found.mean + precise_einsum("kb,kd->bd", copies, means),
            found.kept + jnp.sum(copies, axis=0),
            found.candidates + jnp.sum(jnp.where(candidate, multiplicity[:, None], 0.0), axis=0),
        )

    b, _, d = patches.shape
    nothing = MinedBackground(jnp.zeros((b, d)), jnp.zeros(b), jnp.zeros(b))
    return lax.fori_loop(0, -(-count // block), mine, nothing)


def mean_of_best(scores: Float[Array, "*batch p"], count: int) -> Float[Array, "*batch"]:
    """The mean of the `count` highest scores, by as many rounds of maxima: an accelerator would sort for `top_k`.

    A round takes all scores that equal its maximum, as far as there is room for them.
    """
    total, left = jnp.zeros(scores.shape[:-1]), jnp.full(scores.shape[:-1], float(count))
    best = jnp.max(scores, axis=-1, keepdims=True)
    for _ in range(count):
        taken = jnp.minimum(jnp.sum((scores == best).astype(scores.dtype), axis=-1), left)
        total += jnp.where(taken > 0, taken * best[..., 0], 0.0)
        left -= taken
        best = jnp.max(jnp.where(scores < best, scores, -jnp.inf), axis=-1, keepdims=True)
    return total / count


def _standardised_unbiased(maps: Float[Array, "*batch p"]) -> Float[Array, "*batch p"]:
    """Maps minus their mean over their unbiased standard deviation; an empty bank's flat map becomes 0."""
    centred = maps - jnp.mean(maps, axis=-1, keepdims=True)
    std = jnp.std(maps, axis=-1, keepdims=True, ddof=1)
    return centred / jnp.where(std > 0.0, std, 1.0)
