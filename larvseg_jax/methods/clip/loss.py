"""CLIP's loss: which caption belongs to which picture of a batch, and the other way round."""

from __future__ import annotations

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float

from larvseg_jax.models.clip import contrastive_logits


def contrastive_loss(
    images: Float[Array, "b d"],
    texts: Float[Array, "b d"],
    scale: Float[Array, ""],
    valid: Bool[Array, " b"] | None = None,
) -> Float[Array, ""]:
    """Mean over the pairs of both directions' cross-entropies, halved (Radford et al. 2021, Figure 3).

    Args:
      images, texts: pairs, not normalised.
      scale: of the cosines.
      valid: False for rows that only fill the batch up: they are no pair, and nobody's wrong answer; None: all are.
    """
    real = jnp.ones(images.shape[0], bool) if valid is None else valid
    logits = contrastive_logits(images, texts, scale)
    of_pictures = _cross_entropies(logits, real)
    of_texts = _cross_entropies(logits.T, real)
    pairs = jnp.maximum(jnp.sum(real.astype(jnp.float32)), 1.0)
    return jnp.sum(jnp.where(real, of_pictures + of_texts, 0.0)) / (2 * pairs)


def _cross_entropies(logits: Float[Array, "b b"], real: Bool[Array, " b"]) -> Float[Array, " b"]:
    """Of each row, whose right column is that of its own number, among the real columns."""
    competing = jnp.where(real[None], logits, -1e30)
    return jax.nn.logsumexp(competing, axis=1) - jnp.diagonal(logits)
