"""L_vision (ViL-Seg, Eq. 2): what a picture is said to be from a part of it has to be what is said from the whole.

`Paper:` Eq. 2 as printed has a trivial minimum, the same one-hot distribution for every picture. The targets are
therefore centred and sharpened constants by default, as DINO's are.
"""

from __future__ import annotations

from typing import Literal

import jax
import jax.numpy as jnp
from jax import lax
from jaxtyping import Array, Bool, Float

from larvseg_jax.methods.contrastive import mean_of

Target = Literal["centered", "ema_teacher", "stopgrad", "literal"]
"""What the whole picture says: softmax of its logits less the centre, sharpened, of the network itself or of its
running mean; or plain softmax, as a constant or with gradients (Eq. 2 as printed)."""


def targets(
    logits: Float[Array, "b k"], center: Float[Array, " k"], kind: Target, temperature: float | Float[Array, ""]
) -> Float[Array, "b k"]:
    """Phi_a of the whole pictures: the distributions that local views are to reproduce (Eq. 2).

    Args:
      logits: of the whole pictures; for "ema_teacher" the teacher's.
      center: running mean of such logits; taken off by "centered" and "ema_teacher".
      kind: see `Target`; gradients go through "literal" alone.
      temperature: below that of the local views, it sharpens.
    """
    if kind in ("centered", "ema_teacher"):
        logits = logits - center[None]
    probabilities = jax.nn.softmax(logits / temperature)
    return probabilities if kind == "literal" else lax.stop_gradient(probabilities)


def vision_loss(
    target: Float[Array, "b k"],
    local_logits: Float[Array, "v b k"],
    counted: Bool[Array, " b"],
    temperature: float | Float[Array, ""],
) -> Float[Array, ""]:
    """Cross entropy of target and local views, mean over views and the pictures that count (Eq. 2, a term a view)."""
    log_probabilities = jax.nn.log_softmax(local_logits / temperature)
    of_views = -jnp.sum(target[None] * log_probabilities, axis=-1)
    return mean_of(jnp.mean(of_views, axis=0), counted)


def next_center(
    center: Float[Array, " k"], logits: Float[Array, "b k"], counted: Bool[Array, " b"], momentum: float
) -> Float[Array, " k"]:
    """The centre after a step: a running mean of the whole pictures' logits, before any temperature."""
    weights = counted.astype(logits.dtype)
    mean = jnp.sum(logits * weights[:, None], axis=0) / jnp.maximum(jnp.sum(weights), 1.0)
    return jnp.where(jnp.any(counted), momentum * center + (1 - momentum) * mean, center)


def entropy(probabilities: Float[Array, "*batch k"]) -> Float[Array, "*batch"]:
    """In nats."""
    return -jnp.sum(probabilities * jnp.log(jnp.maximum(probabilities, jnp.finfo(jnp.float32).tiny)), axis=-1)
