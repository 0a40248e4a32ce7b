"""Which attention a backbone has on some devices, and why not the fastest."""

from __future__ import annotations

from collections.abc import Iterable

import jax
import jax.numpy as jnp

from larvseg_jax.models.attention import Attention
from larvseg_jax.models.vit_config import ViTConfig


def device_attention(config: ViTConfig, devices: Iterable[jax.Device]) -> Attention:
    """The attention for a computation over these devices, all of one kind.

    On one CPU device a loop over (picture, head) is fastest at the sizes of real trainings (benchmarks/attention.py).
    With more devices the pictures are split among them, and a loop over them would gather them first.
    """
    platform, *others = [device.platform for device in devices]
    if platform == "cpu":
        return "all_heads" if others else "head_by_head"
    if platform == "gpu":
        return "library" if _why_not_cudnn(config) else "cudnn"
    return "splash" if platform == "tpu" and not _why_not_splash(config) else "library"


def attention_line(config: ViTConfig, device: jax.Device) -> str:
    """How attention is computed, for people; empty on CPUs, where there is nothing to say."""
    if device.platform == "gpu":
        kernel, reason = "cuDNN", _why_not_cudnn(config)
    elif device.platform == "tpu":
        kernel, reason = "splash", _why_not_splash(config)
    else:
        return ""
    return f"attention: not fused, {reason}" if reason else f"attention: fused ({kernel})"


def _why_not_splash(config: ViTConfig) -> str:
    if config.dtype == "float32":
        return "because the kernel is for bfloat16 (--config.model.dtype=bfloat16)"
    return ""


def _why_not_cudnn(config: ViTConfig) -> str:
    """Why cuDNN's attention cannot be had for this backbone; empty if it can. jax itself is asked, with two tokens."""
    if config.dtype == "float32":
        return "because cuDNN has none in float32 (--config.model.dtype=bfloat16)"
    head = jax.ShapeDtypeStruct((1, 2, 1, config.width // config.num_heads), jnp.dtype(config.dtype))
    try:
        # A function of its own each time: what jax has traced once it would not ask about again.
        jax.eval_shape(lambda x: jax.nn.dot_product_attention(x, x, x, implementation="cudnn"), head)
    except (RuntimeError, NotImplementedError, ValueError) as error:
        return f"because cuDNN's is refused here ({' '.join(str(error).split())[:100].rstrip('.')})"
    return ""
