"""Softmax attention, computed as suits the device: softmax(q k^T / sqrt(e)) v per head, softmax in float32.

Letters: b pictures, n tokens, k heads, e features of a head.
"""

from __future__ import annotations

import contextlib
import contextvars
import functools
from collections.abc import Iterator
from typing import Literal

import jax
from jax import lax
from jaxtyping import Array, Float

from larvseg_jax.models.attention_cpu import attention_head_by_head, attention_of_all_heads

CpuAttention = Literal["head_by_head", "all_heads"]
"""How a CPU computes attention; GPU and TPU use the library's. The two differ in rounding only."""


def cpu_attention(devices: int) -> CpuAttention:
    """The attention for a computation over so many CPU devices.

    On one device a loop over (picture, head) is fastest at the sizes of real trainings (benchmarks/attention.py). With
    more devices the pictures are split among them, and a loop over them would gather them first.
    """
    return "head_by_head" if devices == 1 else "all_heads"


_same_on_all = contextvars.ContextVar("same_on_all", default=False)


@contextlib.contextmanager
def same_on_all_devices() -> Iterator[None]:
    """What is traced meanwhile computes attention as GPU and TPU do: a program for any device, without branches."""
    token = _same_on_all.set(True)
    try:
        yield
    finally:
        _same_on_all.reset(token)


def dot_product_attention(
    query: Float[Array, "b n k e"],
    key: Float[Array, "b n k e"],
    value: Float[Array, "b n k e"],
    on_cpu: CpuAttention,
    *,
    causal: bool = False,
) -> Float[Array, "b n k e"]:
    """softmax(q k^T / sqrt(e)) v per head, in the dtype of the value; `on_cpu` as `cpu_attention` says.

    Causal: a query sees no key behind it. Captions are short, so that a CPU then computes all heads at once.
    """
    library = functools.partial(attention_of_jax, causal=causal)
    if _same_on_all.get():
        return library(query, key, value)
    of_all = functools.partial(attention_of_all_heads, causal=causal)
    cpu = attention_head_by_head if on_cpu == "head_by_head" and not causal else of_all
    return lax.platform_dependent(query, key, value, cpu=cpu, default=library)


def attention_of_jax(
    query: Float[Array, "b n k e"],
    key: Float[Array, "b n k e"],
    value: Float[Array, "b n k e"],
    *,
    causal: bool = False,
) -> Float[Array, "b n k e"]:
    """The library's, for GPU and TPU."""
    # It mixes bfloat16 and float32 inside, which strict promotion refuses.
    with jax.numpy_dtype_promotion("standard"):
        return jax.nn.dot_product_attention(query, key, value, is_causal=causal)
