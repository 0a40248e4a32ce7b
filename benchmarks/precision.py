"""The class head's products on this device: three bfloat16 passes, as training has them, and other precisions.

    python -m benchmarks.precision

Forward and backward, all in turn, median of `--repeats`, as ratio to full float32 in the same run; and how far the
product is from float64, as root mean square over that of the product (of 64 rows and 512 columns). On a CPU XLA
computes all of them in full, or refuses.
"""

from __future__ import annotations

import argparse
import functools
import statistics
from collections.abc import Callable, Mapping
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax

from benchmarks._turns import seconds_in_turn
from larvseg_jax.models.precision import precise_einsum

Product = Callable[[str, jax.Array, jax.Array], jax.Array]
Shape = tuple[int, ...]
Shapes = tuple[str, Shape, Shape]

PRODUCTS: dict[str, Shapes] = {
    "class projection": ("nd,de->ne", (21_841, 768), (768, 768)),
    "scores of 3,200 patches": ("pd,nd->pn", (3_200, 768), (21_841, 768)),
}
"""Subscripts, and the shapes of both operands: those of 8 pictures of 320 pixels in configs/c171_i21k.py."""


def _at(precision: lax.PrecisionLike) -> Product:
    return lambda subscripts, a, b: jnp.einsum(subscripts, a, b, precision=precision)


FULL = "float32 in full"
PRECISIONS: dict[str, Product] = {
    FULL: _at(lax.Precision.HIGHEST),
    "larvseg_jax (precise_einsum)": precise_einsum,
    "three passes of bfloat16": _at(lax.DotAlgorithmPreset.BF16_BF16_F32_X3),
    "six passes of bfloat16": _at(lax.DotAlgorithmPreset.BF16_BF16_F32_X6),
    "TF32": _at(lax.DotAlgorithmPreset.TF32_TF32_F32),
    "one pass of bfloat16": _at(lax.DotAlgorithmPreset.BF16_BF16_F32),
}


def measure(products: Mapping[str, Shapes], repeats: int) -> list[dict[str, Any]]:
    """A row per product and precision; one that this device does not have says so."""
    return [{"product": name, **row} for name, shapes in products.items() for row in _of_one(*shapes, repeats)]


def _of_one(subscripts: str, left: Shape, right: Shape, repeats: int) -> list[dict[str, Any]]:
    keys = jax.random.split(jax.random.key(0), 2)
    a, b = jax.random.normal(keys[0], left), jax.random.normal(keys[1], right)
    rows: list[dict[str, Any]] = []
    works, errors = {}, {}
    for name, product in PRECISIONS.items():
        step = jax.jit(jax.grad(functools.partial(_loss, product, subscripts), (0, 1)))
        try:
            compiled = step.lower(a, b).compile()
            errors[name] = _error(product, subscripts, a, b)
        except (ValueError, RuntimeError) as error:  # jax's and XLA's refusals
            rows.append({"precision": name, "failed": " ".join(str(error).split())[:120]})
            continue
        works[name] = functools.partial(_wait_for, compiled, a, b)
    found = {name: statistics.median(seconds) for name, seconds in seconds_in_turn(works, repeats).items()}
    full = found[FULL]
    return [
        {"precision": name, "ms": 1e3 * time, "over float32": time / full, "error": errors[name]}
        for name, time in found.items()
    ] + rows


def _wait_for(compiled: Callable[..., object], a: jax.Array, b: jax.Array) -> None:
    jax.block_until_ready(compiled(a, b))


def _loss(product: Product, subscripts: str, a: jax.Array, b: jax.Array) -> jax.Array:
    return jnp.mean(product(subscripts, a, b) ** 2)


def _error(product: Product, subscripts: str, a: jax.Array, b: jax.Array) -> float:
    """Against float64, of 64 rows of the first and up to 512 of the second operand."""
    b = b[:512] if subscripts.startswith("pd,nd") else b
    a = a[:64]
    exact = np.einsum(subscripts, np.asarray(a, np.float64), np.asarray(b, np.float64))
    found = np.asarray(jax.jit(product, static_argnums=0)(subscripts, a, b), np.float64)
    return float(np.sqrt(np.mean((found - exact) ** 2) / np.mean(exact**2)))


def main() -> None:
    """Prints one line per product and precision."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--repeats", type=int, default=20)
    repeats = parser.parse_args().repeats
    print(f"{jax.devices()[0].device_kind}, jax {jax.__version__}")
    for row in measure(PRODUCTS, repeats):
        found = row.get("failed") or f"{row['ms']:8.2f} ms  {row['over float32']:5.2f} x float32  {row['error']:.1e}"
        print(f"{row['product']:24s} {row['precision']:30s} {found}")


if __name__ == "__main__":
    main()
