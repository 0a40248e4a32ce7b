"""Where on an image each of its tags pools its logits: the CA-Classifier and its single-image variants."""

from __future__ import annotations

from typing import NamedTuple

import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int

from larvseg_jax.methods.larvseg.ca_classifier import (
    CAConfig,
    attention,
    background_scores,
    bank_scores,
    foreground_ranking,
    mine_background,
    norm,
    tag_scores,
)
from larvseg_jax.methods.larvseg.loss_grid import pooling_weights
from larvseg_jax.methods.larvseg.memory_bank import MemoryBank, region_features
from larvseg_jax.methods.larvseg.region import pseudo_region
from larvseg_jax.models.cosine_head import ClassTable
from larvseg_jax.models.precision import precise_einsum
from larvseg_jax.vocabulary import IGNORE_LABEL


class TagPooling(NamedTuple):
    """Where the (image, label) pairs of a batch pool, and what they leave in the bank.

    Attributes:
      weights: pooling weights of every pair on the patch grid.
      active: pairs that take part in L_aux: present, and their bank warm.
      features: what each pair writes to the memory bank.
      attention: the map before upsampling and sigmoid (zeros for the region variant).
    """

    weights: Float[Array, "b l p"]
    active: Bool[Array, "b l"]
    features: Float[Array, "b l d"]
    attention: Float[Array, "b l p"]


def pool_tags(
    patches: Float[Array, "b h w d"],
    table: ClassTable,
    tags: Int[Array, "b l"],
    rows: Int[Array, " n"] | None,
    bank: MemoryBank,
    config: CAConfig,
    size: tuple[int, int],
) -> TagPooling:
    """All pairs of a stream at once, reading the bank as it stood at the start of the step (method 6.2).

    `Original:` pair by pair, so that the bank already holds earlier pairs of the step.
    `rows` are the bank rows of the stream's columns (None: column n is row n), `size` is the loss grid.
    Inputs must carry no gradient (stop_gradient): attention is a constant of the loss.
    """
    b, h, w, d = patches.shape
    flat = patches.reshape(b, h * w, d)
    present = tags != IGNORE_LABEL
    scores = tag_scores(flat, table, tags)
    features, _ = region_features(flat, foreground_ranking(scores, present, config), config.foreground_topk)
    if config.variant == "region":
        weights, exists = pseudo_region(scores, (h, w), size)
        return TagPooling(pooling_weights(weights, (h, w)), present & exists, features, jnp.zeros_like(scores))
    tag_rows = rows_of_tags(tags, rows)
    if config.variant == "own_bank":
        # Method 7b, written before it is read. `Original:` one pair at a time, so that a label sees the
        # image's other labels fresh only if their column is smaller; here all of them are.
        label_means, active = features, present
    else:
        label_means = bank.class_mean[tag_rows]
        active = present & bank.is_warm(tag_rows, config.warmup)
    foreground = precise_einsum("bpd,bld,bl->bp", flat, label_means, present.astype(flat.dtype))
    only_tag = jnp.max(tags, axis=1)
    class_means = bank.class_mean if rows is None else bank.class_mean[rows]
    mined = mine_background(flat, table, class_means, only_tag, foreground, config)
    s_fg = bank_scores(flat, label_means)
    s_bg = background_scores(flat, s_fg, present, mined)
    return TagPooling(attention(s_fg, s_bg, (h, w), size), active, features, norm(s_fg - s_bg))


def rows_of_tags(tags: Int[Array, "b l"], rows: Int[Array, " n"] | None) -> Int[Array, "b l"]:
    """Bank rows of tags, which are columns; empty slots get some row."""
    columns = jnp.maximum(tags, 0)
    return columns if rows is None else rows[columns]
