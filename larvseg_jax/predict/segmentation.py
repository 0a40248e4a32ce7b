"""What was found in a photo: the best class of every pixel, its regions, and figures of each class."""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Iterable, Sequence
from typing import Any

import numpy as np
from jaxtyping import Float32, Float64, Int32, Int64, UInt16

from larvseg_jax.predict.predictor import Prediction
from larvseg_jax.predict.regions import Region, Runs, joined, regions, runs_of


@dataclasses.dataclass(frozen=True)
class Segment:
    """A connected region of a class.

    Attributes:
      name: of the class.
      group: "base" (learnt from masks), "novel" (from tags only), "background", or "" where the model does not say.
      share: of the photo's pixels.
      region: its pixels, box and mean score; polygons and COCO's runs are made when they are asked for.
    """

    name: str
    group: str
    share: float
    region: Region

    @property
    def figures(self) -> dict[str, Any]:
        """Class, group, area, share, box and score, as files in JSON have them."""
        return {
            "class": self.name,
            "group": self.group,
            "pixels": self.pixels,
            "share": round(self.share, 6),
            "box": list(self.box),
            "score": round(self.score, 4),
        }

    @property
    def label(self) -> int:
        """Place of the class in `names`."""
        return self.region.label

    @property
    def pixels(self) -> int:
        """Its area."""
        return self.region.pixels

    @property
    def box(self) -> tuple[int, int, int, int]:
        """Left, top, width, height, in pixels."""
        return self.region.box

    @property
    def score(self) -> float:
        """Mean score of its pixels."""
        return self.region.score

    @property
    def polygons(self) -> list[list[tuple[int, int]]]:
        """Its outline and then its holes (x, y), along the borders of pixels."""
        return self.region.polygons

    @property
    def rle(self) -> dict[str, list[int]]:
        """COCO's run-length encoding, not compressed; `pycocotools.mask.frPyObjects` compresses it."""
        return {"size": list(self.region.size), "counts": self.region.counts}


@dataclasses.dataclass(frozen=True, eq=False, repr=False)
class Segmentation:
    """What was found in a photo: 2 bytes a pixel and its runs of equal labels; more only if it is asked for.

    Attributes:
      names: the classes that competed.
      groups: for each "base", "novel", "background", "ignored" or "".
      labels: the label map: the best class of every pixel, an index into `names`.
      runs: the same as runs of equal labels, with their scores.
      pixels: where each class is best.
      mean_scores: mean score of each class there; NaN where it is nowhere best.
      mean_probabilities: mean probability likewise; None unless asked for.
      top_labels, scores, probabilities: the best k classes of every pixel, best first, their standardised logits and
        their softmax over all that competed; None unless they were to be kept.
    """

    names: tuple[str, ...]
    groups: tuple[str, ...]
    labels: UInt16[np.ndarray, "H W"]
    runs: Runs
    pixels: Int64[np.ndarray, " n"]
    mean_scores: Float64[np.ndarray, " n"]
    mean_probabilities: Float64[np.ndarray, " n"] | None
    top_labels: Int32[np.ndarray, "H W k"] | None = None
    scores: Float32[np.ndarray, "H W k"] | None = None
    probabilities: Float32[np.ndarray, "H W k"] | None = None

    @classmethod
    def of(
        cls, strips: Iterable[Prediction], size: tuple[int, int], groups: Sequence[str] = (), *, keep: bool = False
    ) -> Segmentation:
        """Of the strips that make up a photo of `size` = (height, width), from top to bottom.

        Args:
          strips: at least one.
          size: of the photo.
          groups: of the names; all "" if none are given.
          keep: keep the best classes of every pixel, too.
        """
        labels = np.empty(size, np.uint16)
        sums: list[np.ndarray] = []  # pixels, scores, probabilities
        runs: list[Runs] = []
        kept: Prediction | None = None
        names: tuple[str, ...] = ()
        first = 0
        for strip in strips:
            names, best, scores = strip.names, strip.labels[..., 0], strip.scores[..., 0]
            labels[first : first + len(best)] = best
            runs.append(runs_of(best, scores, first))
            if keep:
                kept = kept or _room(strip, size)
                _put(strip, kept, first)
            first += len(best)
            weights = [None, scores]
            weights += [] if strip.probabilities is None else [strip.probabilities[..., 0]]
            found = [np.bincount(best.ravel(), w if w is None else w.ravel(), len(names)) for w in weights]
            sums = [a + b for a, b in zip(sums, found, strict=True)] if sums else found
        pixels, *totals = sums
        means = [np.divide(t, pixels, out=np.full(len(names), np.nan), where=pixels > 0) for t in totals]
        return cls(
            names,
            tuple(groups) or ("",) * len(names),
            labels,
            joined(runs),
            pixels,
            means[0],
            means[1] if len(means) > 1 else None,
            *((kept.labels, kept.scores, kept.probabilities) if kept else ()),
        )

    @property
    def size(self) -> tuple[int, int]:
        """Height and width."""
        return self.labels.shape[0], self.labels.shape[1]

    def shares(self) -> list[tuple[int, float]]:
        """The classes that are best somewhere, and their share of the pixels, the largest first."""
        order = np.argsort(-self.pixels, kind="stable")
        return [(int(i), float(self.pixels[i]) / self.labels.size) for i in order if self.pixels[i]]

    @functools.cached_property
    def segments(self) -> list[Segment]:
        """The connected regions of the best class, the largest first."""
        found = regions(self.runs, self.size)
        return [Segment(self.names[r.label], self.groups[r.label], r.pixels / self.labels.size, r) for r in found]


def _room(strip: Prediction, size: tuple[int, int]) -> Prediction:
    """Arrays for the whole photo like those of a strip."""
    labels, scores = (np.empty((*size, strip.labels.shape[2]), part.dtype) for part in (strip.labels, strip.scores))
    return Prediction(strip.names, labels, scores, None if strip.probabilities is None else np.empty_like(scores))


def _put(strip: Prediction, whole: Prediction, first: int) -> None:
    """A strip into the rows of the whole photo from `first` on."""
    rows = slice(first, first + len(strip.labels))
    whole.labels[rows], whole.scores[rows] = strip.labels, strip.scores
    if whole.probabilities is not None:
        whole.probabilities[rows] = strip.probabilities
