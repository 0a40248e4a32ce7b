"""Self-attention on this device: the library's against layouts that XLA may run faster.

    python -m benchmarks.attention

Forward and backward of one layer's softmax(q k^T) v, median of `--repeats`, as ratio to
`jax.nn.dot_product_attention` in the same run, and to the time of its two matrix products alone.
"""

from __future__ import annotations

import argparse
import statistics
import time
from collections.abc import Callable

import jax
import jax.numpy as jnp

from larvseg_jax.models.attention_cpu import attention_head_by_head

Attention = Callable[[jax.Array, jax.Array, jax.Array], jax.Array]

SHAPES = {
    "ViT-B/16, 512 px": (2, 1025, 12, 64),
    "small photos": (24, 145, 3, 32),
    "generated": (40, 65, 3, 32),
}


def library(q: jax.Array, k: jax.Array, v: jax.Array) -> jax.Array:
    """`jax.nn.dot_product_attention`, heads in the third axis."""
    return jax.nn.dot_product_attention(q, k, v)


def heads_first(q: jax.Array, k: jax.Array, v: jax.Array) -> jax.Array:
    """Batch and heads in front, one batched product each way."""
    q, k, v = (x.transpose(0, 2, 1, 3) for x in (q, k, v))
    weights = jax.nn.softmax(q @ k.swapaxes(-1, -2) * q.shape[-1] ** -0.5)
    return (weights @ v).transpose(0, 2, 1, 3)


def chunked(q: jax.Array, k: jax.Array, v: jax.Array) -> jax.Array:
    """A loop over chunks of about 64 queries, all heads together."""
    b, n, h, e = q.shape
    chunk = -(-n // max(1, n // 64))
    q = jnp.pad(q, ((0, 0), (0, -n % chunk), (0, 0), (0, 0))).reshape(b, -1, chunk, h, e).swapaxes(0, 1)
    one = jax.checkpoint(lambda part: jax.nn.dot_product_attention(part, k, v))
    return jax.lax.map(one, q).swapaxes(0, 1).reshape(b, -1, h, e)[:, :n]


def products_only(q: jax.Array, k: jax.Array, v: jax.Array) -> jax.Array:
    """The two matrix products as plain 2-D ones of the same number of operations: what is attainable."""
    b, n, h, e = q.shape
    q2, k2, v2 = (x.reshape(b * n, h * e) for x in (q, k, v))
    return ((q2 @ k2[:n].T) @ v2[:n]).reshape(b, n, h, e)


VARIANTS: dict[str, Attention] = {
    "library": library,
    "heads first": heads_first,
    "larvseg_jax": attention_head_by_head,
    "chunked": chunked,
    "products only": products_only,
}


def seconds(attention: Attention, shape: tuple[int, int, int, int], repeats: int) -> float:
    """Median seconds of forward + backward."""
    q, k, v = jax.random.normal(jax.random.key(0), (3, *shape))
    step = jax.jit(jax.grad(lambda q, k, v: jnp.sum(attention(q, k, v) ** 2), argnums=(0, 1, 2)))
    jax.block_until_ready(step(q, k, v))
    times = []
    for _ in range(repeats):
        begin = time.perf_counter()
        jax.block_until_ready(step(q, k, v))
        times.append(time.perf_counter() - begin)
    return statistics.median(times)


def main() -> None:
    """Prints one line per shape and variant."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--repeats", type=int, default=7)
    repeats = parser.parse_args().repeats
    print(f"{jax.devices()[0].device_kind}, jax {jax.__version__}")
    for name, shape in SHAPES.items():
        baseline = seconds(library, shape, repeats)
        for variant, attention in VARIANTS.items():
            time_ = seconds(attention, shape, repeats)
            print(f"{name:18s} {variant:14s} {1e3 * time_:8.1f} ms  {time_ / baseline:5.2f} x library")


if __name__ == "__main__":
    main()
