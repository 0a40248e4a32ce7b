"""L_cross (ViL-Seg, Eq. 3 and 4): a picture is to be told from its caption among those of the whole batch."""

from __future__ import annotations

import math

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float

from larvseg_jax.devices.in_step import constrain
from larvseg_jax.methods.vilseg.vision import mean_of
from larvseg_jax.models.precision import exact_einsum

MOST_LOG_SCALE = math.log(100.0)
"""Cosines are multiplied by 100 at most, as in CLIP. Beyond that the scale has no gradient."""

_NEVER = -1e9


def unit(vectors: Float[Array, "*batch d"]) -> Float[Array, "*batch d"]:
    """Vectors of length 1; zero stays zero."""
    length = jnp.sum(vectors * vectors, axis=-1, keepdims=True)
    return vectors * jnp.where(length > 0, jax.lax.rsqrt(jnp.maximum(length, 1e-24)), 0.0)


def cosines(images: Float[Array, "b d"], texts: Float[Array, "c d"]) -> Float[Array, "b c"]:
    """cos(e_v, e_t) of every picture and every text; the pictures stay split over the devices."""
    return constrain(exact_einsum("bd,cd->bc", unit(images), unit(texts)), "data", None)


def cross_loss(
    cosine: Float[Array, "b b"], log_scale: Float[Array, ""], counted: Bool[Array, " b"], *, symmetric: bool
) -> Float[Array, ""]:
    """L_cross: cross entropy of each picture's own caption among all of the batch.

    Args:
      cosine: of picture (row) and caption (column); pair b is [b, b].
      log_scale: -ln tau.
      counted: False for rows that only fill up; they are nobody's negatives.
      symmetric: the mean of that and of each caption's own picture among all. `Paper:` False.
    """
    logits = cosine * jnp.exp(jnp.minimum(log_scale, MOST_LOG_SCALE))
    own = jnp.diagonal(logits)

    def one_way(others: Float[Array, "b b"]) -> Float[Array, ""]:
        among = jnp.where(counted[None], others, _NEVER)
        return mean_of(jax.nn.logsumexp(among, axis=1) - own, counted)

    to_text = one_way(logits)
    return (to_text + one_way(logits.T)) / 2 if symmetric else to_text


def retrieved(cosine: Float[Array, "b b"], counted: Bool[Array, " b"]) -> Float[Array, ""]:
    """Share of the pictures whose own caption is the nearest of the batch (retrieval@1)."""
    among = jnp.where(counted[None], cosine, _NEVER)
    right = jnp.diagonal(cosine) >= jnp.max(among, axis=1)
    return mean_of(right.astype(cosine.dtype), counted)
