"""Softmax attention in one kernel on a TPU (splash attention of jax's Pallas kernels): no scores in HBM.

Letters: b pictures, n tokens, k heads, e features of a head.
"""

from __future__ import annotations

import functools

import jax
import jax.numpy as jnp
from jax.experimental.pallas.ops.tpu.splash_attention import (
    BlockSizes,
    FullMask,
    MultiHeadMask,
    SegmentIds,
    make_splash_mha_single_device,
)
from jaxtyping import Array, Float

from larvseg_jax.devices.in_step import by_picture

_BLOCKS = 512, 384, 256  # tokens, multiples of a TPU's 128 lanes
_WHOLE = 2048  # so many keys fit into one block


def blocks(tokens: int) -> tuple[int, int, int]:
    """(tokens filled up, queries of a block, keys of a block): the fewest empty tokens, then the largest blocks."""
    filled, minus_block = min((-(-tokens // block) * block, -block) for block in _BLOCKS)
    return filled, -minus_block, filled if filled <= _WHOLE else -minus_block


def attention_of_splash(
    query: Float[Array, "b n k e"],
    key: Float[Array, "b n k e"],
    value: Float[Array, "b n k e"],
    *,
    interpret: bool = False,
) -> Float[Array, "b n k e"]:
    """softmax(q k^T / sqrt(e)) v per head, in the dtype of the value; every device its own pictures.

    `interpret` runs the kernel step by step on any device, for tests.
    """
    return by_picture(functools.partial(_splash, interpret), (query * query.shape[-1] ** -0.5, key, value))


def _splash(interpret: bool, projected: tuple[Array, Array, Array]) -> Float[Array, "b n k e"]:
    _, tokens, heads, _ = projected[0].shape
    filled, queries, keys = blocks(tokens)
    sizes = BlockSizes(
        block_q=queries,
        block_kv=keys,
        block_kv_compute=keys,
        block_q_dkv=queries,
        block_kv_dkv=keys,
        block_kv_dkv_compute=keys,
        use_fused_bwd_kernel=True,
    )
    mask = MultiHeadMask([FullMask((filled, filled)) for _ in range(heads)])
    kernel = make_splash_mha_single_device(mask, block_sizes=sizes, interpret=interpret)
    # Empty tokens are of another segment: nothing real attends to them.
    segment = (jnp.arange(filled) >= tokens).astype(jnp.int32)
    one = functools.partial(kernel, segment_ids=SegmentIds(segment, segment) if filled > tokens else None)
    padding = (0, 0), (0, 0), (0, filled - tokens), (0, 0)
    heads_first = [jnp.pad(x.swapaxes(1, 2), padding) for x in projected]
    return jax.vmap(one)(*heads_first)[:, :, :tokens].swapaxes(1, 2)
