"""How much memory the search for the best classes takes, and how it is cut to fit a budget."""

from __future__ import annotations

import dataclasses
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
      threads: bands searched at a time.
      bytes: the most memory that is in use at a time, in and outside of the device, the class table not counted.
    """

    k: int
    log_sum: bool
    slab_rows: int
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
    band = _band_bytes(rows, columns, patch_columns, classes, k, log_sum)
    pixels = (held or int(rows.last[-1]) + 1) * (int(columns.last[-1]) + 1)
    output = pixels * (8 * k + 4 * log_sum)
    row = 4 * patch_columns * (classes + 2 * min(LISTED, classes))
    least = max(len(np.unique(sources)) for sources in rows.sources)
    most = -(-len(np.unique(rows.sources)) // few) * few
    for threads in range(_most_threads(), 0, -1):
        slab_rows = min((budget - set_aside - output - threads * band) // row, most)
        if slab_rows >= least:
            slab_rows = max(slab_rows // few * few, least)
            return Plan(k, log_sum, slab_rows, threads, output + threads * band + slab_rows * row)
    needed = set_aside + output + band + least * row
    raise TooLittleMemoryError(
        f"{classes} classes at {pixels} pixels need {in_gib(needed)}, but the budget is "
        f"{in_gib(max(budget, 0))}: give more memory (--memory_gb) or a smaller picture"
    )


def log_sum_block(pixels: int) -> int:
    """Classes added up at a time in a band of so many pixels."""
    return max(_LOG_SUM_SCORES // pixels, 8)


def _most_threads() -> int:
    """On a CPU the bands share the cores; elsewhere two keep the device busy."""
    return min(os.cpu_count() or 1, 8) if jax.default_backend() == "cpu" else 2


def _band_bytes(rows: AxisTiles, columns: AxisTiles, q: int, n: int, k: int, log_sum: bool) -> int:
    """Most memory of one band: scores of a row of patches, or at those of a few tiles, and of the classes tried."""
    s = rows.sources.shape[1]
    tiles, u = columns.sources.shape
    pixels = tiles * rows.weights.shape[1] * columns.weights.shape[1]
    scores = n * max(2 * q, TOGETHER * (s * u + 4))
    chunks = pixels * (3 * (CHUNK + k) + 4 * k) + tiles * s * u * LISTED * (s * u + 6)
    blocks = (n * s * (2 * tiles * u + q) + s * u * pixels + 2 * max(_LOG_SUM_SCORES, 8 * pixels)) * log_sum
    return 4 * max(scores + chunks, blocks)
