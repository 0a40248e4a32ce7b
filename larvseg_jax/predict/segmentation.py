"""What the files and the table say of a photo: the best class of every pixel, and figures of each class."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable

import numpy as np
from jaxtyping import Float64, Int64, UInt16

from larvseg_jax.predict.predictor import Prediction


@dataclasses.dataclass(frozen=True)
class Segmentation:
    """The best class of every pixel of a photo: 2 bytes a pixel, where a `Prediction` has 8 per class that is kept.

    Attributes:
      names: the classes that competed.
      labels: indices into `names`.
      pixels: where each class is best.
      scores: mean score of each class there; NaN where it is nowhere best.
      probabilities: mean probability likewise; None unless asked for.
    """

    names: tuple[str, ...]
    labels: UInt16[np.ndarray, "H W"]
    pixels: Int64[np.ndarray, " n"]
    scores: Float64[np.ndarray, " n"]
    probabilities: Float64[np.ndarray, " n"] | None

    @classmethod
    def of(cls, strips: Iterable[Prediction], size: tuple[int, int]) -> Segmentation:
        """Of the strips that make up a photo of `size` = (height, width), from top to bottom."""
        labels = np.empty(size, np.uint16)
        names: tuple[str, ...] = ()
        sums: list[np.ndarray] = []  # pixels, scores, probabilities
        first = 0
        for strip in strips:
            names, best = strip.names, strip.labels[..., 0]
            labels[first : first + len(best)] = best
            first += len(best)
            weights = [None, strip.scores[..., 0]]
            weights += [] if strip.probabilities is None else [strip.probabilities[..., 0]]
            found = [np.bincount(best.ravel(), w if w is None else w.ravel(), len(names)) for w in weights]
            sums = [a + b for a, b in zip(sums, found, strict=True)] if sums else found
        pixels, *totals = sums
        means = [np.divide(t, pixels, out=np.full(len(names), np.nan), where=pixels > 0) for t in totals]
        return cls(names, labels, pixels, means[0], means[1] if len(means) > 1 else None)

    def shares(self) -> list[tuple[int, float]]:
        """The classes that are best somewhere, and their share of the pixels, the largest first."""
        order = np.argsort(-self.pixels, kind="stable")
        return [(int(i), float(self.pixels[i]) / self.labels.size) for i in order if self.pixels[i]]
