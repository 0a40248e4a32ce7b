"""Products that have to be precise: TPU and GPU round float32 operands to bfloat16 or TF32 by default."""

from __future__ import annotations

import functools

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax
from jaxtyping import Array, Float

from larvseg_jax.models.any_device import for_any_device

THREE_PASSES = lax.DotAlgorithmPreset.BF16_BF16_F32_X3
"""Each operand as the sum of two bfloat16 numbers, three of the four products of these, added in float32.

Half the price of full float32 on a TPU (six passes), a fifth on an H100 (outside the tensor cores). All recorded
numbers of other implementations hold with it; with one pass of TF32 hundreds do not (docs/performance.md).
"""


def precise_einsum(subscripts: str, *operands: Float[Array | np.ndarray, "..."]) -> Float[Array, "..."]:
    """`jnp.einsum` of float32: in full on CPUs and GPUs before Ampere, by `THREE_PASSES` on other accelerators."""
    precision = lax.Precision.HIGHEST if for_any_device() else _precision()
    return jnp.einsum(subscripts, *operands, precision=precision)


@functools.cache
def _precision() -> lax.Precision | lax.DotAlgorithmPreset:
    """What all devices of this process can do. A CPU computes in full float32 whatever it is asked."""
    return THREE_PASSES if all(map(has_three_passes, jax.local_devices())) else lax.Precision.HIGHEST


def has_three_passes(device: jax.Device) -> bool:
    """Whether XLA has `THREE_PASSES` for a device: not for GPUs without bfloat16, nor for others than NVIDIA's."""
    if device.platform != "gpu":
        return True
    try:
        return float(device.compute_capability) >= 8.0
    except ValueError:  # "gfx90a"
        return False
