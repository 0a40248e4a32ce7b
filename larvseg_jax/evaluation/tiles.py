"""Cuts one axis of an upsampled map into tiles in which few samples bound all others."""

from __future__ import annotations

from typing import NamedTuple

import jax
import numpy as np
from jaxtyping import Float32, Int32

_WASTE = 1.5  # room that tiles may take, as a multiple of what they cover
_LINEAR = 1e-6  # weights that differ less from a straight line are on it


class AxisTiles(NamedTuple):
    """The samples of one axis in consecutive tiles. Arrays of JAX once it is on its way to the device.

    Attributes:
      first, last: samples of the tile, both included.
      sources: the input samples (patches) that contribute; filled up by repetition.
      weights: weight of each source in each sample; samples beyond the tile's end repeat its last one.
      corners: weights of a few samples between which the weights are linear; filled up by repetition.
    """

    first: Int32[np.ndarray, " t"] | jax.Array
    last: Int32[np.ndarray, " t"] | jax.Array
    sources: Int32[np.ndarray, "t s"] | jax.Array
    weights: Float32[np.ndarray, "t length s"] | jax.Array
    corners: Float32[np.ndarray, "t v s"] | jax.Array


def axis_tiles(matrix: Float32[np.ndarray, "out in"], most_corners: int = 0, longest: int = 64) -> AxisTiles:
    """Tiles of an interpolation matrix: non-negative rows that add up to 1, piecewise linear in the sample.

    Args:
      matrix: one of `sliding_window.stitch_matrix`.
      most_corners: the most corners of a tile, 2 or more. Few make tight bounds; but as all tiles take the room
        of the longest, 0 takes the fewest with which little of it is wasted.
      longest: the most samples of a tile.
    """
    kinks = _kinks(matrix)
    choices = [
        _cut(kinks, len(matrix), corners, longest) for corners in ([most_corners] if most_corners else (2, 3, 4))
    ]
    room = [len(bounds) * max(b - a + 1 for a, b in bounds) for bounds in choices]
    bounds = next(
        (c for c, r in zip(choices, room, strict=True) if r <= _WASTE * len(matrix)), choices[np.argmin(room)]
    )
    sources = [np.flatnonzero(matrix[a : b + 1].any(0)) for a, b in bounds]
    corners = [np.unique([a, *kinks[(kinks > a) & (kinks < b)], b]) for a, b in bounds]
    s, v = max(map(len, sources)), max(map(len, corners))
    length = max(b - a + 1 for a, b in bounds)
    tiles = [_tile(matrix, a, b, length, s, v, *parts) for (a, b), *parts in zip(bounds, sources, corners, strict=True)]
    starts, ends = np.array(bounds, np.int32).T
    return AxisTiles(starts, ends, *(np.stack(part) for part in zip(*tiles, strict=True)))


def rounded_up(tiles: AxisTiles, count: int = 1, length: int = 16, few: int = 4) -> AxisTiles:
    """The same tiles in arrays whose sizes are multiples, so that photos of many sizes share compiled programs.

    Args:
      tiles: arrays of NumPy.
      count: multiple for the number of tiles; those added hold no sample.
      length: multiple for the samples of a tile.
      few: multiple for its sources and corners.
    """
    t, samples, s = tiles.weights.shape
    more = -t % count
    end = int(tiles.last[-1])
    grown = -samples % length, -s % few, -tiles.corners.shape[1] % few
    sources = np.pad(tiles.sources, ((0, more), (0, grown[1])), mode="edge")
    weights = np.pad(tiles.weights, ((0, more), (0, grown[0]), (0, 0)), mode="edge")
    corners = np.pad(tiles.corners, ((0, more), (0, grown[2]), (0, 0)), mode="edge")
    return AxisTiles(
        np.pad(tiles.first, (0, more), constant_values=end + 1),
        np.pad(tiles.last, (0, more), constant_values=end),
        sources,
        np.pad(weights, ((0, 0), (0, 0), (0, grown[1]))),  # a repeated source weighs nothing
        np.pad(corners, ((0, 0), (0, 0), (0, grown[1]))),
    )


def _cut(kinks: np.ndarray, samples: int, most_corners: int, longest: int) -> list[tuple[int, int]]:
    """First and last sample of every tile."""
    bounds, first = [], 0
    while first < samples:
        inside = kinks[kinks > first]
        last = int(inside[most_corners - 2]) if len(inside) > most_corners - 2 else samples - 1
        last = min(last, first + longest - 1)
        bounds.append((first, last))
        first = last + 1
    return bounds


def _tile(
    matrix: np.ndarray, first: int, last: int, length: int, s: int, v: int, sources: np.ndarray, corners: np.ndarray
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Sources, weights and corners of a tile, filled up to the sizes of the largest."""
    samples = np.minimum(np.arange(first, first + length), last)
    filled = np.pad(sources, (0, s - len(sources)), mode="edge")
    used = np.arange(s) < len(sources)  # a repeated source weighs nothing
    weights = np.where(used, matrix[:, filled], np.float32(0))
    return filled.astype(np.int32), weights[samples], weights[np.pad(corners, (0, v - len(corners)), mode="edge")]


def _kinks(matrix: np.ndarray) -> np.ndarray:
    """Samples, the outer ones among them, between which all weights are linear (Douglas and Peucker)."""
    kinks, waiting = {0, len(matrix) - 1}, [(0, len(matrix) - 1)]
    while waiting:
        a, b = waiting.pop()
        if b - a < 2:
            continue
        share = (np.arange(a, b + 1) - a)[:, None] / (b - a)
        chord = (1 - share) * matrix[a] + share * matrix[b]
        distance = np.abs(matrix[a : b + 1] - chord).sum(1)
        if distance.max() > _LINEAR:
            middle = a + int(distance.argmax())
            kinks.add(middle)
            waiting += [(a, middle), (middle, b)]
    return np.array(sorted(kinks))
