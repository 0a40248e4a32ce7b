"""Products that have to be precise: TPU and GPU round float32 operands to bfloat16 or TF32 by default."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax
from jaxtyping import Array, Float

from larvseg_jax.models.any_device import traced_for

THREE_PASSES = lax.DotAlgorithmPreset.BF16_BF16_F32_X3
"""Each operand as the sum of two bfloat16 numbers, three of the four products of these, added in float32.

Half the price of full float32 on a TPU (six passes), a fifth on an H100 (outside the tensor cores). All recorded
numbers of other implementations hold with it; with one pass of TF32 hundreds do not (docs/performance.md).
"""


def precise_einsum(subscripts: str, *operands: Float[Array | np.ndarray, "..."]) -> Float[Array, "..."]:
    """`jnp.einsum` of float32: by `THREE_PASSES` on TPUs and on NVIDIA's GPUs since Ampere, in full elsewhere."""
    return jnp.einsum(subscripts, *operands, precision=_precision())


def _precision() -> lax.Precision | lax.DotAlgorithmPreset:
    own, kind = jax.local_devices()[0], traced_for()
    without = kind == "gpu" and own.platform == "gpu" and not has_bfloat16(own)
    return THREE_PASSES if kind in ("tpu", "gpu") and not without else lax.Precision.HIGHEST


def has_bfloat16(gpu: jax.Device) -> bool:
    """Whether the tensor cores of a GPU have bfloat16, as XLA wants it: NVIDIA's since Ampere."""
    try:
        return float(gpu.compute_capability) >= 8.0
    except ValueError:  # AMD's "gfx90a"
        return False
