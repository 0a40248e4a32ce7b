"""Cross entropy of the pixels of a loss grid, from logits on the patch grid (docs/method.md, section 5.2)."""

from __future__ import annotations

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int

from larvseg_jax.devices.in_step import constrain
from larvseg_jax.models.resize import resize_bilinear
from larvseg_jax.vocabulary import IGNORE_LABEL

NEVER = -1e30
"""A logit that never counts; finite, because log-sum-exp over nothing but -inf has no gradient."""


def pixel_cross_entropy(
    logits: Float[Array, "b h w n"],
    multiplicity: Float[Array, " n"],
    label: Int[Array, "b H W"],
    valid: Bool[Array, " b"],
    mean_over: str = "all",
) -> Float[Array, ""]:
    """Softmax cross entropy of the logits, upsampled to the loss grid.

    `Original:` divided by all pixels, ignored ones included; mean_over="valid" divides by the labelled
    ones. Images with valid=False are padding and count in neither.
    """
    upsampled = resize_bilinear(constrain(logits, "data", None, None, "model"), (label.shape[1], label.shape[2]))
    upsampled = constrain(upsampled, "data", None, None, "model")  # the largest array of a step
    log_sum = jax.nn.logsumexp(upsampled + log_count(multiplicity[None, None, None]), axis=-1)
    losses = log_sum - pick(upsampled, label)
    counted = (label != IGNORE_LABEL) & valid[:, None, None]
    if mean_over == "all":
        pixels = jnp.sum(valid) * (label.shape[1] * label.shape[2])
    else:
        pixels = jnp.sum(counted)
    return jnp.sum(jnp.where(counted, losses, 0.0)) / jnp.maximum(pixels, 1).astype(losses.dtype)


def log_count(multiplicity: Float[Array, "*batch n"]) -> Float[Array, "*batch n"]:
    """ln m, NEVER where m is 0: added to a logit it makes one column count m times in a log-sum-exp."""
    return jnp.where(multiplicity > 0, jnp.log(jnp.maximum(multiplicity, 1e-6)), NEVER)


def pick(logits: Float[Array, "*batch n"], label: Int[Array, "*batch"]) -> Float[Array, "*batch"]:
    """logits[..., label]; 0 where ignored. A masked sum, which stays local when n is sharded."""
    columns = jnp.arange(logits.shape[-1], dtype=label.dtype)
    own = label[..., None] == columns.reshape((1,) * label.ndim + (-1,))
    return jnp.sum(jnp.where(own, logits, 0.0), axis=-1)
