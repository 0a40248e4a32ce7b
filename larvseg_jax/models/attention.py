"""Softmax attention, computed as suits the device: softmax(q k^T / sqrt(e)) v per head, softmax in float32.

Letters: b pictures, n tokens, k heads, e features of a head.
"""

from __future__ import annotations

import functools
from typing import Literal

import jax
import jax.numpy as jnp
from jax import lax
from jaxtyping import Array, Float

from larvseg_jax.devices.in_step import kernels_can_split
from larvseg_jax.models.any_device import for_any_device
from larvseg_jax.models.attention_cpu import attention_head_by_head, attention_of_all_heads
from larvseg_jax.models.attention_tpu import attention_of_splash

Attention = Literal["head_by_head", "all_heads", "library", "cudnn", "splash"]
"""How attention is computed; all differ in rounding only.

head_by_head, all_heads: on CPUs, one device or several. library: what `jax.nn` makes of it, with all scores in memory.
cudnn: one kernel of NVIDIA's library, which keeps no scores; an odd number of tokens is filled up by one empty token.
splash: one kernel on a TPU, which keeps none either (models/attention_tpu.py); the library's where a program over
several devices is traced without their mesh, as evaluations are.
"""


def dot_product_attention(
    query: Float[Array, "b n k e"],
    key: Float[Array, "b n k e"],
    value: Float[Array, "b n k e"],
    how: Attention,
    *,
    causal: bool = False,
    real: int | None = None,
) -> Float[Array, "b n k e"]:
    """softmax(q k^T / sqrt(e)) v per head, in the dtype of the value.

    Args:
      query, key, value: of all tokens.
      how: the way to compute it, as `device_attention` chooses it.
      causal: a query sees no key behind it. Captions are short: no kernel is asked for then.
      real: so many tokens in front are attended to, those behind them are empty; None: all. Of cudnn only.
    """
    library = functools.partial(attention_of_jax, causal=causal)
    for_any = for_any_device()
    if for_any == "plain":
        return library(query, key, value)
    if for_any or causal:
        cpu = functools.partial(attention_of_all_heads, causal=True) if causal else attention_head_by_head
        return lax.platform_dependent(query, key, value, cpu=cpu, default=library)
    if how == "cudnn":
        return _attention_of_cudnn(query, key, value, real)
    assert real is None, "only cudnn fills tokens up"
    if how == "splash" and kernels_can_split():
        return attention_of_splash(query, key, value)
    if how == "head_by_head":
        return attention_head_by_head(query, key, value)
    return attention_of_all_heads(query, key, value) if how == "all_heads" else library(query, key, value)


def attention_of_jax(
    query: Float[Array, "b n k e"],
    key: Float[Array, "b n k e"],
    value: Float[Array, "b n k e"],
    *,
    causal: bool = False,
) -> Float[Array, "b n k e"]:
    """The library's plain form."""
    # It mixes bfloat16 and float32 inside, which strict promotion refuses.
    with jax.numpy_dtype_promotion("standard"):
        return jax.nn.dot_product_attention(query, key, value, is_causal=causal)


def _attention_of_cudnn(
    query: Float[Array, "b n k e"], key: Float[Array, "b n k e"], value: Float[Array, "b n k e"], real: int | None
) -> Float[Array, "b n k e"]:
    lengths = None if real is None else jnp.full(query.shape[0], real, jnp.int32)
    with jax.numpy_dtype_promotion("standard"):
        return jax.nn.dot_product_attention(
            query, key, value, query_seq_lengths=lengths, key_value_seq_lengths=lengths, implementation="cudnn"
        )


def filled_up(tokens: Float[Array, "b n d"], how: Attention) -> tuple[Float[Array, "b m d"], int | None]:
    """Tokens as a kernel takes them, and how many of them are real: None if all are.

    cuDNN's gradient is refused for an odd number by jax 0.10 and 0.11 (their placeholder for a bias counts as one),
    and 1,024 patches with a class token are odd. One token more is a thousandth of them.
    """
    count = tokens.shape[1]
    if how != "cudnn" or count % 2 == 0 or for_any_device():
        return tokens, None
    return jnp.pad(tokens, ((0, 0), (0, 1), (0, 0))), count
