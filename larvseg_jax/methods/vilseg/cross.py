"""L_cross (ViL-Seg, Eq. 3 and 4): a picture is to be told from its caption among those of the whole batch."""

from __future__ import annotations

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float

from larvseg_jax.methods.vilseg.vision import mean_of

_NEVER = -1e9


def cross_loss(logits: Float[Array, "b b"], counted: Bool[Array, " b"], *, symmetric: bool) -> Float[Array, ""]:
    """L_cross: cross entropy of each picture's own caption among all of the batch.

    Args:
      logits: cos(e_v, e_t) / tau of picture (row) and caption (column); pair b is [b, b].
      counted: False for rows that only fill up; they are nobody's negatives.
      symmetric: the mean of that and of each caption's own picture among all. `Paper:` False.
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
