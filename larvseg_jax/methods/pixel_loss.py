"""Cross entropy of the pixels of a loss grid, from logits on the patch grid (docs/method.md, section 5.2)."""

from __future__ import annotations

import functools

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax
from jaxtyping import Array, Bool, Float, Float32, Int, Int32, Shaped

from larvseg_jax.devices.in_step import constrain
from larvseg_jax.models.any_device import traced_for
from larvseg_jax.models.precision import precise_einsum
from larvseg_jax.models.resize import bilinear_matrix
from larvseg_jax.vocabulary import IGNORE_LABEL

_TOGETHER = 1 << 21  # numbers of a map that a CPU makes at a time: 8 MiB

NEVER = -1e30
"""A logit that never counts; finite, because log-sum-exp over nothing but -inf has no gradient."""


def pixel_cross_entropy(
    logits: Float[Array, "b h w n"],
    multiplicity: Float[Array, " n"],
    label: Int[Array, "b H W"],
    valid: Bool[Array, " b"],
    mean_over: str = "all",
) -> Float[Array, ""]:
    """Softmax cross entropy of the logits, upsampled to the loss grid.

    `Original:` divided by all pixels, ignored ones included; mean_over="valid" divides by the labelled
    ones. Images with valid=False are padding and count in neither.
    """
    counted = (label != IGNORE_LABEL) & valid[:, None, None]
    total = _summed(logits, log_count(multiplicity), label, counted)
    if mean_over == "all":
        pixels = jnp.sum(valid) * (label.shape[1] * label.shape[2])
    else:
        pixels = jnp.sum(counted)
    return total / jnp.maximum(pixels, 1).astype(total.dtype)


@jax.custom_vjp
def _summed(
    logits: Float[Array, "b h w n"],
    extra: Float[Array, " n"],
    label: Int[Array, "b H W"],
    counted: Bool[Array, "b H W"],
) -> Float[Array, ""]:
    """The cross entropies of the counted pixels, added up; `extra` is added to the logits in the log-sum-exp.

    The gradient is made along with the loss, of which it is a multiple: so no map of H x W x n is kept. On a CPU these
    maps are made some rows at a time and stay in its cache; an accelerator makes them whole.
    """
    return _forward(logits, extra, label, counted, gradient=False)[0]


def _forward(
    logits: Float[Array, "b h w n"],
    extra: Float[Array, " n"],
    label: Int[Array, "b H W"],
    counted: Bool[Array, "b H W"],
    *,
    gradient: bool,
) -> tuple[Float[Array, ""], Float[Array, "b h w n"]]:
    """The sum and, if wanted, its gradient (else zeros)."""
    b, h, w, n = logits.shape
    height, width = label.shape[1:]
    together = _rows_together(b * width * n, height)
    matrices, first = _row_blocks(h, height, together)
    columns = bilinear_matrix(w, width)
    # Columns first: the wider map is then made by one matrix product over contiguous rows.
    wide = precise_einsum("Ww,bhwn->bhWn", columns, constrain(logits, "data", None, None, "model"))

    def add_rows(state: tuple[Array, Array], block: tuple[Array, ...]) -> tuple[tuple[Array, Array], None]:
        total, to_wide = state
        matrix, row, label, counted = block
        source = lax.dynamic_slice_in_dim(wide, row, matrix.shape[1], axis=1)
        upsampled = constrain(precise_einsum("rs,bsWn->brWn", matrix, source), "data", None, None, "model")
        losses, to_upsampled = _cross_entropy(upsampled, extra, label)
        total += jnp.sum(jnp.where(counted, losses, 0.0))
        if gradient:
            to_source = precise_einsum("rs,brWn->bsWn", matrix, jnp.where(counted[..., None], to_upsampled, 0.0))
            before = lax.dynamic_slice_in_dim(to_wide, row, matrix.shape[1], axis=1)
            to_wide = lax.dynamic_update_slice_in_dim(to_wide, before + to_source, row, axis=1)
        return (total, to_wide), None

    blocks = (jnp.asarray(part) for part in (matrices, first))
    of_pixels = (_in_blocks(label, together, IGNORE_LABEL), _in_blocks(counted, together, False))
    start = jnp.zeros((), logits.dtype), jnp.zeros_like(wide) if gradient else jnp.zeros((), logits.dtype)
    (total, to_wide), _ = lax.scan(add_rows, start, (*blocks, *of_pixels))
    return total, precise_einsum("Ww,bhWn->bhwn", columns, to_wide) if gradient else jnp.zeros_like(logits)


_summed.defvjp(functools.partial(_forward, gradient=True), lambda kept, weight: (weight * kept, None, None, None))


def _cross_entropy(
    logits: Float[Array, "b r W n"], extra: Float[Array, " n"], label: Int[Array, "b r W"]
) -> tuple[Float[Array, "b r W"], Float[Array, "b r W n"]]:
    """-ln softmax of the label's class, and its gradient: softmax, less 1 at the label."""
    counts = logits + extra[None, None, None]
    greatest = jnp.max(counts, axis=-1, keepdims=True)
    powers = jnp.exp(counts - greatest)
    total = jnp.sum(powers, axis=-1, keepdims=True)
    losses = (jnp.log(total) + greatest)[..., 0] - pick(logits, label)
    return losses, powers / total - _is_own(label, logits.shape[-1]).astype(logits.dtype)


def _rows_together(row: int, rows: int) -> int:
    """How many rows of so many numbers are made at a time, a power of two."""
    if traced_for() != "cpu":
        return rows
    return min(rows, 1 << (max(_TOGETHER // row, 1).bit_length() - 1))


@functools.lru_cache(maxsize=64)
def _row_blocks(h: int, height: int, together: int) -> tuple[Float32[np.ndarray, "k r s"], Int32[np.ndarray, " k"]]:
    """`bilinear_matrix` of some rows at a time, for the few rows of the patch grid that they need; and the first."""
    rows = bilinear_matrix(h, height)
    blocks = np.pad(rows, ((0, -height % together), (0, 0))).reshape(-1, together, h)
    needed = [np.flatnonzero(block.any(axis=0)) for block in blocks]
    count = max(of[-1] - of[0] + 1 for of in needed)
    first = np.array([min(of[0], h - count) for of in needed], np.int32)
    return np.stack([block[:, row : row + count] for block, row in zip(blocks, first, strict=True)]), first


def _in_blocks(of_pixels: Shaped[Array, "b H W"], together: int, filler: int | bool) -> Shaped[Array, "k b r W"]:
    b, height, width = of_pixels.shape
    filled = jnp.pad(of_pixels, ((0, 0), (0, -height % together), (0, 0)), constant_values=filler)
    return filled.reshape(b, -1, together, width).swapaxes(0, 1)


def log_count(multiplicity: Float[Array, "*batch n"]) -> Float[Array, "*batch n"]:
    """ln m, NEVER where m is 0: added to a logit it makes one column count m times in a log-sum-exp."""
    return jnp.where(multiplicity > 0, jnp.log(jnp.maximum(multiplicity, 1e-6)), NEVER)


def pick(logits: Float[Array, "*batch n"], label: Int[Array, "*batch"]) -> Float[Array, "*batch"]:
    """logits[..., label]; 0 where ignored. A masked sum, which stays local when n is sharded."""
    return jnp.sum(jnp.where(_is_own(label, logits.shape[-1]), logits, 0.0), axis=-1)


def _is_own(label: Int[Array, "*batch"], classes: int) -> Bool[Array, "*batch {classes}"]:
    columns = jnp.arange(classes, dtype=label.dtype)
    return label[..., None] == columns.reshape((1,) * label.ndim + (-1,))
