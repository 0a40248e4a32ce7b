"""Self-attention on this device: the library's against layouts that XLA may run faster.

    python -m benchmarks.attention

Forward and backward of one layer's softmax(q k^T) v, all in turn, median of `--repeats`, as ratio to
`jax.nn.dot_product_attention` in the same run, and to the time of its two matrix products alone.
"""

from __future__ import annotations

import argparse
import functools
import statistics
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Literal

import jax
import jax.numpy as jnp

from benchmarks._turns import seconds_in_turn
from larvseg_jax.models.attention import dot_product_attention, filled_up
from larvseg_jax.models.attention_choice import device_attention
from larvseg_jax.models.attention_cpu import attention_head_by_head
from larvseg_jax.models.vit_config import ViTConfig

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


def seconds(
    variants: Mapping[str, Attention], shape: tuple[int, int, int, int], repeats: int
) -> dict[str, list[float]]:
    """Seconds of forward + backward of each variant: pictures, tokens, heads and features of a head, float32."""
    q, k, v = jax.random.normal(jax.random.key(0), (3, *shape))
    steps = {name: _step(attention) for name, attention in variants.items()}
    works = {name: lambda step=step: jax.block_until_ready(step(q, k, v)) for name, step in steps.items()}
    return seconds_in_turn(works, repeats)


def _step(attention: Attention) -> jax.stages.Wrapped:
    return jax.jit(jax.grad(lambda q, k, v: jnp.sum(attention(q, k, v).astype(jnp.float32) ** 2), argnums=(0, 1, 2)))


def layers(
    shapes: Sequence[tuple[int, int, int, int]], dtype: Literal["float32", "bfloat16"], calls: int, repeats: int
) -> list[dict[str, Any]]:
    """A row per shape and way: XLA's form, cuDNN's kernel, and what the backbone has on this device.

    Milliseconds of forward + backward, median and best of `repeats`, each of `calls` calls that the device has in its
    queue at once. A way that is refused has a row that says why.
    """
    rows = []
    for b, n, h, e in shapes:
        config = ViTConfig(width=h * e, num_heads=h, dtype=dtype)
        how = device_attention(config, jax.devices()[:1])
        made = {
            "XLA": functools.partial(dot_product_attention, how="library"),
            "cuDNN": functools.partial(dot_product_attention, how="cudnn"),
            "larvseg_jax": functools.partial(dot_product_attention, how=how),
        }
        works, refused = {}, {}
        for name, attention in made.items():
            # The empty token is there from the first layer to the last one: filling up is not part of a layer.
            filled, real = filled_up(jnp.zeros((1, n, 1), dtype), how if name == "larvseg_jax" else "library")
            inputs = jax.random.normal(jax.random.key(0), (3, b, filled.shape[1], h, e), dtype)
            try:
                step = _step(attention if real is None else functools.partial(attention, real=real))
                with jax.numpy_dtype_promotion("standard"):  # the library mixes dtypes in its gradient, too
                    compiled = step.lower(*inputs).compile()
                jax.block_until_ready(compiled(*inputs))
            except (ValueError, RuntimeError, NotImplementedError) as error:
                refused[name] = " ".join(str(error).split())[:120]
                continue
            works[name] = functools.partial(_queue, compiled, inputs, calls)
        for name, times in seconds_in_turn(works, repeats).items():
            ms = [1e3 * time / calls for time in times]
            how_it_is = f"{name} ({how})" if name == "larvseg_jax" else name
            rows.append({"tokens": n, "attention": how_it_is, "ms": statistics.median(ms), "best ms": min(ms)})
        rows += [{"tokens": n, "attention": name, "failed": why} for name, why in refused.items()]
    return rows


def _queue(step: Callable[..., object], inputs: jax.Array, calls: int) -> None:
    jax.block_until_ready([step(*inputs) for _ in range(calls)])


def main() -> None:
    """Prints one line per shape and variant."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--repeats", type=int, default=7)
    repeats = parser.parse_args().repeats
    print(f"{jax.devices()[0].device_kind}, jax {jax.__version__}")
    for name, shape in SHAPES.items():
        found = {variant: statistics.median(times) for variant, times in seconds(VARIANTS, shape, repeats).items()}
        for variant, time_ in found.items():
            print(f"{name:18s} {variant:14s} {1e3 * time_:8.1f} ms  {time_ / found['library']:5.2f} x library")


if __name__ == "__main__":
    main()
