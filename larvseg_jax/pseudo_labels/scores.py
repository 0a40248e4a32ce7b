"""Which classes a picture shows, by what an image-text model says of its proposals (CEL, Sec. 3.4, Eq. 9 and 10)."""

from __future__ import annotations

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float

from larvseg_jax.models.clip import normalised
from larvseg_jax.models.precision import exact_einsum


def class_scores(
    images: Float[Array, "q d"], text: Float[Array, "c d"], scale: Float[Array, ""]
) -> Float[Array, "q c"]:
    """s_i = softmax over classes of scale * cosine (Eq. 9).

    Args:
      images: vectors of the proposals' crops.
      text: vectors of the classes in question alone; others do not compete.
      scale: of the cosines. `Paper:` none is printed, and a softmax over bare cosines stays far below 0.99.
    """
    return jax.nn.softmax(scale * exact_einsum("qd,cd->qc", normalised(images), normalised(text)))


def best_scores(scores: Float[Array, "q c"], valid: Bool[Array, " q"]) -> Float[Array, " c"]:
    """s_j = max over proposals of s_ij (Eq. 10); 0 where no proposal is valid."""
    return jnp.max(jnp.where(valid[:, None], scores, 0.0), axis=0)
