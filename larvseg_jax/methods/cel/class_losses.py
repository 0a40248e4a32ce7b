"""What CEL learns of classes from the labels of whole pictures (Zhao et al., Sec. 3.3): Eq. 1 to 7.

There is no class "background". A query that is matched with a label is to say this label; the others are to prefer no
class to any other (Eq. 5), and the best query of a class that is present is to be better than the best one of any that
is absent (Eq. 6). docs/cel.md says why the options are what they are.
"""

from __future__ import annotations

import dataclasses
from typing import Literal

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int

from larvseg_jax.methods.pixel_loss import pick
from larvseg_jax.models.precision import precise_einsum
from larvseg_jax.vocabulary import IGNORE_LABEL


@dataclasses.dataclass(frozen=True)
class ClassLoss:
    """How the queries' class losses are put together (Eq. 5)."""

    matched_share: float = 0.6  # lambda: of the matched queries' cross entropy; the rest is of the others' KL
    # Mean over the matched and mean over the others, each of the whole batch; sum over the queries and mean over the
    # pictures (`Paper:` as Eq. 5 is printed); sum over all queries divided by the sum of their shares; mean over all.
    reduction: Literal["split", "sum", "weighted", "mean"] = "split"
    # KL(p || uniform), as printed; or KL(uniform || p), which is what F.kl_div(log p, uniform) of PyTorch computes.
    kl: Literal["p_u", "u_p"] = "p_u"


@dataclasses.dataclass(frozen=True)
class RankLoss:
    """How the best queries of classes are compared (Eq. 6)."""

    # A picture's sum is divided by its labels (`Paper:`), or by its pairs of a label and an absent class (Fast0Tag).
    normalise: Literal["positives", "pairs"] = "positives"
    scale: Literal["cosine", "temperature"] = "cosine"  # of what is compared: r (`Paper:`) or r / tau


def cross_entropy(logits: Float[Array, "*batch c"], label: Int[Array, "*batch"]) -> Float[Array, "*batch"]:
    """-ln p(label) (Eq. 1), p = softmax of the logits r / tau (Eq. 2); of no use where the label is IGNORE_LABEL."""
    return jax.nn.logsumexp(logits, axis=-1) - pick(logits, label)


def divergence_from_uniform(logits: Float[Array, "*batch c"], kl: Literal["p_u", "u_p"]) -> Float[Array, "*batch"]:
    """KL between p = softmax of the logits and a uniform distribution over the classes, in nats (`ClassLoss.kl`)."""
    log_probabilities = jax.nn.log_softmax(logits)
    log_classes = jnp.log(jnp.asarray(logits.shape[-1], logits.dtype))
    if kl == "u_p":
        return -log_classes - jnp.mean(log_probabilities, axis=-1)
    return log_classes + jnp.sum(jnp.exp(log_probabilities) * log_probabilities, axis=-1)


def class_loss(
    logits: Float[Array, "*outputs b q c"],
    label_of_query: Int[Array, "*outputs b q"],
    counted: Bool[Array, " b"],
    options: ClassLoss,
) -> Float[Array, "*outputs"]:
    """L_class (Eq. 5) of each output: lambda CE of the matched queries, (1 - lambda) KL of the others.

    Args:
      logits: r / tau.
      label_of_query: of matching.label_of_query; IGNORE_LABEL for queries without a label.
      counted: False for pictures that only fill up. A picture without labels has queries without labels.
      options: see `ClassLoss`.
    """
    there = jnp.broadcast_to(counted[:, None], logits.shape[:-1])
    matched, others = there & (label_of_query != IGNORE_LABEL), there & (label_of_query == IGNORE_LABEL)

    def total(losses: Float[Array, "*outputs b q"], of: Bool[Array, "*outputs b q"]) -> Float[Array, "*outputs"]:
        return jnp.sum(jnp.where(of, losses, 0.0), axis=(-2, -1))

    def count(of: Bool[Array, "*outputs b q"]) -> Float[Array, "*outputs"]:
        return jnp.sum(of, axis=(-2, -1)).astype(logits.dtype)

    share = options.matched_share
    of_matched = share * total(cross_entropy(logits, label_of_query), matched)
    of_others = (1 - share) * total(divergence_from_uniform(logits, options.kl), others)
    if options.reduction == "split":
        return of_matched / jnp.maximum(count(matched), 1.0) + of_others / jnp.maximum(count(others), 1.0)
    divisor = {
        "sum": count(there) / logits.shape[-2],
        "weighted": share * count(matched) + (1 - share) * count(others),
        "mean": count(there),
    }[options.reduction]
    return (of_matched + of_others) / jnp.maximum(divisor, 1e-6)


def best_similarity(similarity: Float[Array, "*batch q c"]) -> Float[Array, "*batch c"]:
    """r*: the similarity of each class at its best query (Eq. 6), which alone gets the gradient, also in a draw."""
    best = jnp.argmax(similarity, axis=-2, keepdims=True)
    return jnp.take_along_axis(similarity, best, axis=-2)[..., 0, :]


def rank_loss(
    similarity: Float[Array, "*outputs b q c"],
    labels: Int[Array, "b k"],
    counted: Bool[Array, " b"],
    options: RankLoss,
    temperature: float = 1.0,
) -> Float[Array, "*outputs"]:
    """L_rank (Eq. 6 and 7): softplus(r*_absent - r*_present) over all such pairs of classes; mean over the pictures.

    Args:
      similarity: r, the cosines.
      labels: present in each picture, each once, filled up with IGNORE_LABEL. A picture without any adds 0.
      counted: False for pictures that only fill up.
      options: see `RankLoss`.
      temperature: tau; of use to `scale` = "temperature" only.
    """
    classes = jnp.arange(similarity.shape[-1])[None, None]
    own = labels[..., None] == classes
    present, absent = labels != IGNORE_LABEL, ~jnp.any(own, axis=1)
    best = best_similarity(similarity)
    best = best / temperature if options.scale == "temperature" else best
    of_labels = precise_einsum("...bc,bkc->...bk", best, own.astype(best.dtype))
    losses = jax.nn.softplus(best[..., None, :] - of_labels[..., None])
    sums = jnp.sum(jnp.where(present[..., None] & absent[:, None], losses, 0.0), axis=(-2, -1))
    positives = jnp.sum(present, axis=1)
    pairs = positives if options.normalise == "positives" else positives * jnp.sum(absent, axis=1)
    weights = jnp.where(counted, 1 / jnp.maximum(pairs, 1).astype(sums.dtype), 0.0)
    return precise_einsum("...b,b->...", sums, weights) / jnp.maximum(jnp.sum(counted), 1).astype(sums.dtype)
