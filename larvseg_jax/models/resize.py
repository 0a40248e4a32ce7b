"""Resampling as matrices: one small dense matrix per axis, so that a transpose is just a transpose.

All follow PyTorch with align_corners=False: half-pixel centres, borders clamped, no antialiasing but where the name
says so.
`jax.image.resize` differs for "cubic" (a = -0.5, renormalised border) and "nearest" (pixel centres).
"""

from __future__ import annotations

import functools
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Float32, Int

from larvseg_jax.models.precision import precise_einsum


def _centres(n_in: int, n_out: int) -> np.ndarray:
    return (np.arange(n_out) + 0.5) * (n_in / n_out) - 0.5


@functools.cache
def bilinear_matrix(n_in: int, n_out: int) -> Float32[np.ndarray, "{n_out} {n_in}"]:
    """U with U @ x = x interpolated linearly from n_in to n_out samples."""
    position = np.clip(_centres(n_in, n_out), 0.0, n_in - 1.0)
    left = np.minimum(np.floor(position).astype(int), n_in - 1)
    matrix = np.zeros((n_out, n_in))
    rows = np.arange(n_out)
    np.add.at(matrix, (rows, left), 1.0 - (position - left))
    np.add.at(matrix, (rows, np.minimum(left + 1, n_in - 1)), position - left)
    return _frozen(matrix)


@functools.cache
def bicubic_matrix(n_in: int, n_out: int) -> Float32[np.ndarray, "{n_out} {n_in}"]:
    """The same with cubic convolution, a = -0.75 (method 2: the position embedding)."""
    position = _centres(n_in, n_out)
    first = np.floor(position).astype(int) - 1
    matrix = np.zeros((n_out, n_in))
    for tap in range(4):
        weight = _cubic_kernel(position - (first + tap))
        np.add.at(matrix, (np.arange(n_out), np.clip(first + tap, 0, n_in - 1)), weight)
    return _frozen(matrix)


@functools.cache
def antialiased_bicubic_matrix(n_in: int, n_out: int) -> Float32[np.ndarray, "{n_out} {n_in}"]:
    """The same as Pillow does it, and PyTorch with antialias=True: a = -0.5, the kernel as wide as an output sample.

    Taps beyond the border are left out, the others of a row sum to 1.
    """
    wider = max(n_in / n_out, 1.0)
    distance = (_centres(n_in, n_out)[:, None] - np.arange(n_in)) / wider
    matrix = _cubic_kernel(distance, -0.5)
    return _frozen(matrix / matrix.sum(1, keepdims=True))


def bicubic_crop_matrix(
    first: Int[Array, " b"], last: Int[Array, " b"], n_in: int, n_out: int
) -> Float[Array, "b {n_out} {n_in}"]:
    """For each of b stretches [first, last) of n_in samples the `bicubic_matrix` to n_out samples; one of none is 0."""
    length = last - first
    middles = jnp.asarray((np.arange(n_out) + 0.5) / n_out, jnp.float32)
    position = middles[None] * length.astype(jnp.float32)[:, None] - 0.5
    left = jnp.floor(position).astype(first.dtype) - 1
    matrix = jnp.zeros((len(first), n_out, n_in))
    for tap in range(4):
        weight = _cubic_kernel(position - (left + tap).astype(position.dtype), of=jnp)
        place = first[:, None] + jnp.clip(left + tap, 0, length[:, None] - 1)
        matrix += jax.nn.one_hot(place, n_in) * weight[..., None]
    return jnp.where((length > 0)[:, None, None], matrix, 0.0)


def nearest_indices(n_in: int, n_out: int) -> np.ndarray:
    """Source index floor(i * n_in / n_out) of every output sample, (n_out,) int."""
    return np.arange(n_out) * n_in // n_out


def resize_bilinear(maps: Float[Array, "*batch h w c"], size: tuple[int, int]) -> Float[Array, "*batch H W c"]:
    """Resizes maps over their two middle axes to `size` = (H, W)."""
    rows = bilinear_matrix(maps.shape[-3], size[0])
    columns = bilinear_matrix(maps.shape[-2], size[1])
    # Columns first: the wider map is then made by one matrix product over contiguous rows.
    wide = precise_einsum("Ww,...hwc->...hWc", columns, maps)
    return precise_einsum("Hh,...hWc->...HWc", rows, wide)


def _cubic_kernel(distance: Any, a: float = -0.75, of: Any = np) -> Any:
    """Of an array of NumPy or, with of=jnp, of JAX."""
    t = abs(distance)
    near = (a + 2) * t**3 - (a + 3) * t**2 + 1
    far = a * t**3 - 5 * a * t**2 + 8 * a * t - 4 * a
    return of.where(t <= 1, near, of.where(t < 2, far, 0.0))


def _frozen(matrix: np.ndarray) -> np.ndarray:
    """float32 and read-only, because the cache hands the same array to everybody."""
    matrix = matrix.astype(np.float32)
    matrix.setflags(write=False)
    return matrix
