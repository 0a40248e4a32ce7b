"""Which caption belongs to which picture of a batch: the loss of CLIP, and L_cross of ViL-Seg (Eq. 3 and 4)."""

from __future__ import annotations

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float

_NEVER = -1e9


def contrastive_loss(logits: Float[Array, "b b"], counted: Bool[Array, " b"], *, symmetric: bool) -> Float[Array, ""]:
    """Cross entropy of each picture's own caption among all of the batch; 0 if no pair counts.

    Args:
      logits: scaled cosines of picture (row) and caption (column); pair b is [b, b].
      counted: False for rows that only fill up; they are nobody's negatives.
      symmetric: the mean of that and of each caption's own picture among all (CLIP). ViL-Seg's paper: False.
    """
    own = jnp.diagonal(logits)

    def one_way(others: Float[Array, "b b"]) -> Float[Array, ""]:
        among = jnp.where(counted[None], others, _NEVER)
        return mean_of(jax.nn.logsumexp(among, axis=1) - own, counted)

    to_text = one_way(logits)
    return (to_text + one_way(logits.T)) / 2 if symmetric else to_text


def retrieved(logits: Float[Array, "b b"], counted: Bool[Array, " b"]) -> Float[Array, ""]:
    """Share of the pictures whose own caption is the nearest of the batch (retrieval@1)."""
    among = jnp.where(counted[None], logits, _NEVER)
    right = jnp.diagonal(logits) >= jnp.max(among, axis=1)
    return mean_of(right.astype(logits.dtype), counted)


def mean_of(values: Float[Array, " b"], counted: Bool[Array, " b"]) -> Float[Array, ""]:
    """Mean over the pictures that count; 0 without any."""
    return jnp.sum(jnp.where(counted, values, 0.0)) / jnp.maximum(jnp.sum(counted), 1).astype(values.dtype)
