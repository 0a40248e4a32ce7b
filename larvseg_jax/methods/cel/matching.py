"""Which query answers for which label: costs, and the assignment of the least total (Mask2Former; CEL, Sec. 3.2).

Masks and classes are matched apart in CEL; both have a cost for each (query, label) and labels that fill up.
"""

from __future__ import annotations

from typing import Literal, NamedTuple

import jax
import jax.numpy as jnp
import optax
from jax import lax
from jaxtyping import Array, Bool, Float, Int

from larvseg_jax.models.precision import precise_einsum
from larvseg_jax.vocabulary import IGNORE_LABEL

ClassCost = Literal["similarity", "probability", "log_probability"]
"""What makes a query fit a label: its cosine (`Paper:`), its probability, or the logarithm of that."""

_WORST = 1e6  # a cost that is no number: a training that diverged has to reach the line that says so


class Matching(NamedTuple):
    """The pairs of each picture, a slot for each label.

    Attributes:
      query: that the label is matched with; no two labels have the same one.
      matched: False for slots that only fill up, and for labels that are more than the queries.
    """

    query: Int[Array, "*batch k"]
    matched: Bool[Array, "*batch k"]


def match(cost: Float[Array, "*batch q k"], present: Bool[Array, "*batch k"]) -> Matching:
    """The pairs of the least total cost, in all pictures at once. No gradient.

    One call for everything (outputs, pictures, kinds stacked in `batch`) compiles the algorithm once.

    Args:
      cost: of query and label; what absent labels have does not matter.
      present: False for slots that only fill up.
    """
    *batch, q, k = cost.shape
    finite = jnp.where(jnp.isfinite(cost), jnp.clip(cost, -_WORST, _WORST), _WORST)
    # A constant column changes nothing about the others, as long as there is a query for each column; where there are
    # fewer, it is the dearest, so that no label that is present gives way to it.
    dearest = jnp.max(jnp.where(present[..., None, :], finite, 0.0), axis=(-2, -1), keepdims=True) + 1.0
    padded = jnp.where(present[..., None, :], finite, dearest if k > q else 0.0)
    rows, columns = jax.vmap(optax.assignment.hungarian_algorithm)(lax.stop_gradient(padded).reshape(-1, q, k))

    def by_label(rows: Int[Array, " n"], columns: Int[Array, " n"]) -> Int[Array, " k"]:
        return jnp.full(k, IGNORE_LABEL).at[columns].set(rows)

    query = jax.vmap(by_label)(rows, columns).reshape(*batch, k)
    return Matching(jnp.maximum(query, 0), (query >= 0) & present)


def label_of_query(matching: Matching, labels: Int[Array, "b k"], queries: int) -> Int[Array, "*outputs b {queries}"]:
    """The label that each query is matched with; IGNORE_LABEL of the others."""
    query = matching.query[..., None, :]
    own = query == jnp.arange(queries).reshape(*(1,) * (query.ndim - 2), queries, 1)
    found = jnp.where(own & matching.matched[..., None, :], labels[:, None], IGNORE_LABEL)
    return jnp.max(found, axis=-1)


def of_matched(of_queries: Float[Array, "*batch q e"], matching: Matching) -> Float[Array, "*batch k e"]:
    """The vectors of the matched queries, in the labels' order."""
    return jnp.take_along_axis(of_queries, matching.query[..., None], axis=-2)


def mask_cost(
    logits: Float[Array, "*batch q p"],
    targets: Float[Array, "*batch k p"],
    *,
    ce: float,
    dice: float,
    weight: Float[Array, "*batch 1 p"] | None = None,
) -> Float[Array, "*batch q k"]:
    """ce * cross entropy + dice * dice loss of each query's mask and each label's, at points that all share.

    As in mask_losses.py, but of all pairs: as products of matrices over the points, which count by their `weight`.
    """
    weight = jnp.ones_like(logits[..., :1, :]) if weight is None else weight
    counted, probabilities = weight * targets, jax.nn.sigmoid(logits)
    # softplus(-x) y + softplus(x) (1 - y) = softplus(x) - x y
    agreement = precise_einsum("...qp,...kp->...qk", logits, counted)
    entropies = jnp.sum(weight * jax.nn.softplus(logits), axis=-1)[..., None] - agreement
    points = jnp.maximum(jnp.sum(weight, axis=-1, keepdims=True), 1e-6)
    overlap = precise_einsum("...qp,...kp->...qk", probabilities, counted)
    sizes = jnp.sum(weight * probabilities, axis=-1)[..., None] + jnp.sum(counted, axis=-1)[..., None, :]
    return ce * entropies / points + dice * (1 - (2 * overlap + 1) / (sizes + 1))


def class_cost(scores: Float[Array, "*outputs b q c"], labels: Int[Array, "b k"]) -> Float[Array, "*outputs b q k"]:
    """The negative score of each label at each query; 0 for IGNORE_LABEL. The classes may be sharded."""
    own = (labels[..., None] == jnp.arange(scores.shape[-1])[None, None]).astype(scores.dtype)
    return -precise_einsum("...bqc,bkc->...bqk", scores, own)


def fitness(similarity: Float[Array, "*batch c"], kind: ClassCost, temperature: float) -> Float[Array, "*batch c"]:
    """What `class_cost` negates in CEL, from the cosines."""
    if kind == "similarity":
        return similarity
    scaled = similarity / temperature
    return jax.nn.softmax(scaled) if kind == "probability" else jax.nn.log_softmax(scaled)
