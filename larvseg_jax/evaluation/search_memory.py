"""How much memory the search for the best classes takes, and how it is cut to fit a budget."""

from __future__ import annotations

import dataclasses
import functools
import os

import jax
import numpy as np

from larvseg_jax.console import in_gib
from larvseg_jax.errors import UserError
from larvseg_jax.evaluation.tiles import AxisTiles

CHUNK = 16  # classes tried at a time
TOGETHER = 8  # tiles that are searched together
LISTED = 48  # best classes of every patch, which are tried first
_LOG_SUM_SCORES = 1 << 19  # scores that are added up at a time: 2 MiB, about a CPU cache


class TooLittleMemoryError(UserError):
    """A photo needs more memory than it may use."""


@dataclasses.dataclass(frozen=True)
class Plan:
    """How `top_classes` goes about a picture.

    Attributes:
      k: classes kept per pixel.
      log_sum: whether the logsumexp is wanted.
      slab_rows: rows of patches scored at a time.
      bands: bands that are one program: on a CPU 1, elsewhere as many as fit.
      threads: such programs at a time.
      bytes: the most memory that is in use at a time, in and outside of the device, the class table not counted.
    """

    k: int
    log_sum: bool
    slab_rows: int
    bands: int
    threads: int
    bytes: int


def plan_memory(
    rows: AxisTiles,
    columns: AxisTiles,
    patch_columns: int,
    classes: int,
    k: int,
    budget: int,
    *,
    log_sum: bool = False,
    held: int | None = None,
    few: int = 1,
    set_aside: int = 0,
) -> Plan:
    """The fastest plan within a budget.

    Args:
      rows, columns: tiles of the output.
      patch_columns: q of the mosaic.
      classes, k: how many compete, how many are kept.
      budget: bytes.
      log_sum: whether the logsumexp is wanted.
      held: rows of the output that are held at a time; all of them by default.
      few: rows of patches are scored by multiples of this where the budget allows it.
      set_aside: bytes of the budget that are for something else.

    Raises:
      TooLittleMemoryError: no plan fits the budget.
    """
    searched = functools.partial(_search_bytes, rows, columns, patch_columns, classes, k, log_sum)
    pixels = (held or int(rows.last[-1]) + 1) * (int(columns.last[-1]) + 1)
    output = pixels * (8 * k + 4 * log_sum)
    row = 4 * patch_columns * (classes + 2 * min(LISTED, classes))
    least = max(len(np.unique(sources)) for sources in rows.sources)
    most = -(-len(np.unique(rows.sources)) // few) * few
    for bands, threads in _together(len(rows.first)):
        beside = output + threads * searched(bands)
        slab_rows = min((budget - set_aside - beside) // row, most)
        if slab_rows >= max(least, min(bands, most)):  # of a slab of few rows not so many bands can be searched
            slab_rows = max(slab_rows // few * few, least)
            return Plan(k, log_sum, slab_rows, bands, threads, beside + slab_rows * row)
    needed = set_aside + output + searched(1) + least * row
    raise TooLittleMemoryError(
        f"{classes} classes at {pixels} pixels need {in_gib(needed)}, but the budget is "
        f"{in_gib(max(budget, 0))}: give more memory (--memory_gb) or a smaller picture"
    )


def log_sum_block(pixels: int) -> int:
    """Classes added up at a time in a band of so many pixels."""
    return max(_LOG_SUM_SCORES // pixels, 8)


def _together(bands: int) -> list[tuple[int, int]]:
    """(bands of a program, programs at a time), the fastest first.

    On a CPU bands share the cores. Elsewhere it takes time to start a program: all bands are one, or half of them, or a
    quarter, ...
    """
    if jax.default_backend() == "cpu":
        return [(1, threads) for threads in range(min(os.cpu_count() or 1, 8), 0, -1)]
    return [(-(-bands >> i), 1) for i in range(bands.bit_length() + 1)]


def _search_bytes(rows: AxisTiles, columns: AxisTiles, q: int, n: int, k: int, log_sum: bool, bands: int) -> int:
    """Most memory of a program of bands: scores of rows of patches, or at a few tiles, and of the classes tried."""
    s = rows.sources.shape[1]
    tiles, u = columns.sources.shape
    pixels = tiles * rows.weights.shape[1] * columns.weights.shape[1]
    scores = n * max(2 * q * bands, TOGETHER * (s * u + 4))
    chunks = bands * (pixels * (3 * (CHUNK + k) + 4 * k) + tiles * s * u * LISTED * (s * u + 6))
    blocks = n * s * (2 * tiles * u + q) + s * u * pixels + 2 * max(_LOG_SUM_SCORES // bands, 8 * pixels)
    return 4 * max(scores + chunks, bands * blocks * log_sum)
