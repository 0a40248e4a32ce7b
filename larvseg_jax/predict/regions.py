"""Connected regions of a label map. They are made of runs of equal labels: memory goes by their number, not by pixels.

A run is told by its row, its first pixel and the one after its last. Regions are joined along rows and columns, not
across corners.
"""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Sequence
from typing import NamedTuple

import cv2
import numpy as np
from jaxtyping import Float32, Float64, Int32, Int64, Integer, UInt8
from scipy.sparse import coo_array
from scipy.sparse.csgraph import connected_components


class Runs(NamedTuple):
    """The longest runs of one label along the rows of a label map, in reading order.

    Attributes:
      row, first, stop: where they are; `stop` is the pixel after the last.
      label: of each.
      score: sum of the scores of its pixels.
    """

    row: Int32[np.ndarray, " r"]
    first: Int32[np.ndarray, " r"]
    stop: Int32[np.ndarray, " r"]
    label: Int32[np.ndarray, " r"]
    score: Float64[np.ndarray, " r"]


@dataclasses.dataclass(frozen=True, eq=False)
class Region:
    """A connected region of one label.

    Attributes:
      label: its label.
      pixels: how many it has.
      box: left, top, width, height, in pixels.
      score: mean score of its pixels.
      size: height and width of the whole map.
      runs: rows, first pixels, and pixels after the last.
    """

    label: int
    pixels: int
    box: tuple[int, int, int, int]
    score: float
    size: tuple[int, int]
    runs: Int32[np.ndarray, "3 r"] = dataclasses.field(repr=False)

    @property
    def mask(self) -> UInt8[np.ndarray, "h w"]:
        """1 on its pixels, 0 elsewhere, within its box."""
        left, top, width, height = self.box
        steps = np.zeros((height, width + 1), np.int8)
        row, first, stop = self.runs
        steps[row - top, first - left] = 1
        steps[row - top, stop - left] = -1
        return np.cumsum(steps, axis=1, dtype=np.int8)[:, :-1].view(np.uint8)

    @functools.cached_property
    def polygons(self) -> list[list[tuple[int, int]]]:
        """Its outline and then those of its holes, as corners (x, y) of pixels: the area inside is that of its pixels.

        The first corner is not repeated at the end.
        """
        # OpenCV joins the centres of the pixels at the border. Of pixels doubled, these tell which side is meant.
        left, top, *_ = self.box
        doubled = np.repeat(np.repeat(self.mask, 2, axis=0), 2, axis=1)
        found, nesting = cv2.findContours(doubled, cv2.RETR_CCOMP, cv2.CHAIN_APPROX_SIMPLE)
        outside_first = np.argsort(nesting[0, :, 3] >= 0, kind="stable")
        rings = [_corners((found[i][:, 0].astype(np.int64) + 1) // 2 + (left, top)) for i in outside_first]
        return [[(int(x), int(y)) for x, y in ring] for ring in rings]

    @functools.cached_property
    def counts(self) -> list[int]:
        """COCO's run-length encoding: lengths of runs of 0 and 1 by turns, column by column, from a 0 on."""
        left, top, width, height = self.box
        steps = np.diff(np.pad(self.mask.T.astype(np.int8), ((0, 0), (1, 1))), axis=1)
        starts, stops = (
            (left + column).astype(np.int64) * self.size[0] + top + row
            for column, row in (np.nonzero(steps == 1), np.nonzero(steps == -1))
        )
        apart = stops[:-1] != starts[1:]  # else a run goes on at the top of the next column
        starts, stops = starts[np.append(True, apart)], stops[np.append(apart, True)]
        ends = np.stack([starts, stops], 1).ravel()
        counts = np.diff(ends, prepend=0, append=self.size[0] * self.size[1]).tolist()
        return counts if counts[-1] else counts[:-1]


def runs_of(labels: Integer[np.ndarray, "h w"], scores: Float32[np.ndarray, "h w"], top: int = 0) -> Runs:
    """The runs of some rows of a map, of which `top` is the first."""
    begins = np.ones(labels.shape, bool)
    np.not_equal(labels[:, 1:], labels[:, :-1], out=begins[:, 1:])
    at = np.flatnonzero(begins)
    row, first = np.divmod(at, labels.shape[1])
    length = np.diff(at, append=labels.size)
    label = labels.ravel()[at].astype(np.int32)
    sums = np.add.reduceat(scores.ravel(), at, dtype=np.float64)
    return Runs((row + top).astype(np.int32), first.astype(np.int32), (first + length).astype(np.int32), label, sums)


def joined(parts: Sequence[Runs]) -> Runs:
    """The runs of parts that follow each other from top to bottom."""
    return Runs(*map(np.concatenate, zip(*parts, strict=True)))


def regions(runs: Runs, size: tuple[int, int]) -> list[Region]:
    """The connected regions of a map of `size` (height, width) whose every pixel is in a run; the largest first."""
    region = _region_of_run(runs, size[1])
    order = np.argsort(region, kind="stable")
    at = np.flatnonzero(np.diff(region[order], prepend=-1))
    ordered = Runs(*(part[order] for part in runs))
    pixels = np.add.reduceat(ordered.stop - ordered.first, at, dtype=np.int64)
    scores = np.add.reduceat(ordered.score, at) / pixels
    left, right = np.minimum.reduceat(ordered.first, at), np.maximum.reduceat(ordered.stop, at)
    top, bottom = np.minimum.reduceat(ordered.row, at), np.maximum.reduceat(ordered.row, at) + 1
    boxes = np.stack([left, top, right - left, bottom - top], 1).tolist()
    places, stops = np.stack([ordered.row, ordered.first, ordered.stop]), np.append(at[1:], len(region))
    return [
        Region(
            int(ordered.label[at[i]]),
            int(pixels[i]),
            (boxes[i][0], boxes[i][1], boxes[i][2], boxes[i][3]),
            float(scores[i]),
            size,
            places[:, at[i] : stops[i]],
        )
        for i in np.argsort(-pixels, kind="stable")
    ]


def _region_of_run(runs: Runs, width: int) -> Int32[np.ndarray, " r"]:
    """Number of the region of every run."""
    place = runs.row.astype(np.int64) * width
    begins = place + runs.first
    below = np.flatnonzero(runs.row > runs.row[0])
    # The runs of the row above that touch a run follow each other.
    first = np.searchsorted(begins, begins[below] - width, "right") - 1
    last = np.searchsorted(begins, (place + runs.stop)[below] - 1 - width, "right") - 1
    lower = np.repeat(below, last - first + 1)
    upper = _ranges(first, last)
    same = runs.label[lower] == runs.label[upper]
    pairs = np.stack([lower[same], upper[same]])
    graph = coo_array((np.ones(pairs.shape[1], np.int8), pairs), shape=(len(begins), len(begins)))
    return connected_components(graph, directed=False)[1].astype(np.int32)


def _ranges(first: Int64[np.ndarray, " n"], last: Int64[np.ndarray, " n"]) -> Int64[np.ndarray, " m"]:
    """first[0] ... last[0], first[1] ... last[1], and so on, one behind the other."""
    counts = last - first + 1
    before = np.cumsum(counts) - counts
    return np.arange(counts.sum()) - np.repeat(before - first, counts)


def _corners(ring: Int64[np.ndarray, "n 2"]) -> Int64[np.ndarray, "m 2"]:
    """A closed ring without repeated points and those on a straight line."""
    ring = ring[(ring != np.roll(ring, 1, axis=0)).any(1)]
    into, out = ring - np.roll(ring, 1, axis=0), np.roll(ring, -1, axis=0) - ring
    return ring[into[:, 0] * out[:, 1] != into[:, 1] * out[:, 0]]
