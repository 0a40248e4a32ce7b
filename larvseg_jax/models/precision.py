"""Products that have to be exact: TPU and GPU round float32 operands to bfloat16 or TF32 by default."""

from __future__ import annotations

import jax.numpy as jnp
import numpy as np
from jax import lax
from jaxtyping import Array, Float


def exact_einsum(subscripts: str, *operands: Float[Array | np.ndarray, "..."]) -> Float[Array, "..."]:
    """`jnp.einsum` in full float32."""
    return jnp.einsum(subscripts, *operands, precision=lax.Precision.HIGHEST)
