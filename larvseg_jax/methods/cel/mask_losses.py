"""Mask2Former's losses of matched pairs of masks, at points, and of classes with one for "no object".

All take the outputs of the decoder as leading axes and give a loss for each. Sums are over the whole batch, divided by
the number of pairs of the whole batch, so that nothing depends on the number of devices.
"""

from __future__ import annotations

from typing import Literal, NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int

from larvseg_jax.methods.cel.matching import Matching
from larvseg_jax.methods.cel.points import least_certain_points, sample_labelled, sample_masks, sample_own
from larvseg_jax.methods.pixel_loss import pick
from larvseg_jax.vocabulary import IGNORE_LABEL

MaskLoss = Literal["ce", "focal"]
"""Of a point: sigmoid cross entropy, as Mask2Former computes what its comments call focal; or that with RetinaNet's
weights, which hardly count points that are right already."""

Where = Literal["anywhere", "labelled"]
"""Which points of a mask count: all, of which those on pixels without a label (of unseen classes, say) are outside of
every mask; or by how much of them lies on pixels that have one ("only pixels of seen classes", Sec. 3.4)."""

_ALPHA, _GAMMA = 0.25, 2.0  # of the focal loss: weight of points inside the mask, exponent of the error


class MaskLosses(NamedTuple):
    """Of each output, without weights."""

    ce: Float[Array, "*outputs"]
    dice: Float[Array, "*outputs"]


def losses_of_pairs(
    logits: Float[Array, "*outputs b k h w"],
    matching: Matching,
    label: Int[Array, "b H W"],
    labels: Int[Array, "b k"],
    candidates: Float[Array, "*outputs b k n 2"],
    anywhere: Float[Array, "*outputs b k r 2"],
    points: int,
    kind: MaskLoss = "ce",
    where: Where = "anywhere",
) -> MaskLosses:
    """The losses of matched masks, each at `points` points of its own, most of them where it is least certain.

    Args:
      logits: of the matched queries' masks.
      matching: of queries and `labels`.
      label: of each pixel, IGNORE_LABEL for none; may be larger or smaller than the logits.
      labels: of each picture's masks, filled up with IGNORE_LABEL.
      candidates, anywhere: uniform draws, see points.least_certain_points.
      points: of each pair.
      kind, where: see `MaskLoss` and `Where`.
    """
    chosen = least_certain_points(logits, candidates, anywhere, points)
    of_points = sample_own(logits, chosen)
    targets = sample_masks(label, jnp.broadcast_to(labels, matching.query.shape), chosen)
    weight = None if where == "anywhere" else sample_labelled(label, chosen)
    return mask_losses(of_points, targets, matching.matched, kind, weight)


def mask_losses(
    logits: Float[Array, "*outputs b k p"],
    targets: Float[Array, "*outputs b k p"],
    matched: Bool[Array, "*outputs b k"],
    kind: MaskLoss = "ce",
    weight: Float[Array, "*outputs b k p"] | None = None,
) -> MaskLosses:
    """Cross entropy and dice loss of matched pairs, summed over the pairs and divided by their number.

    Args:
      logits, targets: of the matched queries' masks and the labels' masks at the points of each pair; the
        latter in [0, 1].
      matched: False for slots that are no pair.
      kind: see `MaskLoss`.
      weight: of the points; without, 1.
    """
    pairs = jnp.maximum(jnp.sum(matched, axis=(-2, -1)), 1).astype(logits.dtype)

    def over_pairs(losses: Float[Array, "*outputs b k"]) -> Float[Array, "*outputs"]:
        return jnp.sum(jnp.where(matched, losses, 0.0), axis=(-2, -1)) / pairs

    return MaskLosses(
        over_pairs(point_entropy(logits, targets, kind, weight)), over_pairs(dice_loss(logits, targets, weight))
    )


def point_entropy(
    logits: Float[Array, "*batch p"],
    targets: Float[Array, "*batch p"],
    kind: MaskLoss = "ce",
    weight: Float[Array, "*batch p"] | None = None,
) -> Float[Array, "*batch"]:
    """Mean over the points (weighted, if so given) of softplus(-x) y + softplus(x) (1 - y), or of its focal form."""
    losses = jax.nn.softplus(-logits) * targets + jax.nn.softplus(logits) * (1 - targets)
    if kind == "focal":
        probabilities = jax.nn.sigmoid(logits)
        error = probabilities * (1 - targets) + (1 - probabilities) * targets
        losses = losses * error**_GAMMA * (_ALPHA * targets + (1 - _ALPHA) * (1 - targets))
    weight = jnp.ones_like(losses) if weight is None else weight
    return jnp.sum(weight * losses, axis=-1) / jnp.maximum(jnp.sum(weight, axis=-1), 1e-6)


def dice_loss(
    logits: Float[Array, "*batch p"], targets: Float[Array, "*batch p"], weight: Float[Array, "*batch p"] | None = None
) -> Float[Array, "*batch"]:
    """1 - (2 sum s y + 1) / (sum s + sum y + 1) over the points, s = sigmoid of the logits; weighted sums, if given."""
    weight = jnp.ones_like(logits) if weight is None else weight
    probabilities, counted = jax.nn.sigmoid(logits), weight * targets
    overlap = jnp.sum(probabilities * counted, axis=-1)
    return 1 - (2 * overlap + 1) / (jnp.sum(weight * probabilities, axis=-1) + jnp.sum(counted, axis=-1) + 1)


def no_object_loss(
    logits: Float[Array, "*outputs b q c"],
    label_of_query: Int[Array, "*outputs b q"],
    counted: Bool[Array, " b"],
    weight: float,
) -> Float[Array, "*outputs"]:
    """Cross entropy of all queries, of which those without a label are to say the last class, "no object".

    Divided by the sum of weights: 1 for queries with a label, `weight` for the others. Pictures that are not counted
    have none.
    """
    none = label_of_query == IGNORE_LABEL
    target = jnp.where(none, logits.shape[-1] - 1, label_of_query)
    losses = jax.nn.logsumexp(logits, axis=-1) - pick(logits, target)
    weights = jnp.where(counted[:, None], jnp.where(none, weight, 1.0), 0.0)
    return jnp.sum(weights * losses, axis=(-2, -1)) / jnp.maximum(jnp.sum(weights, axis=(-2, -1)), 1e-6)
