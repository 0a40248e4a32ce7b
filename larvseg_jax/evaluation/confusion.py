"""Which classes are taken for which: pixels of every pair of label and prediction that occurs."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from jaxtyping import Bool, Int32, Int64

from larvseg_jax.vocabulary import IGNORE_LABEL

_COUNTED = 1 << 20  # pairs of classes: of fewer, counting without sorting is many times as fast


class Mistake(NamedTuple):
    """Pixels labelled as one class and predicted as another; columns of the label set."""

    label: int
    prediction: int
    pixels: int


@dataclasses.dataclass(frozen=True)
class Confusion:
    """Pixels per pair, summed over photos; pairs that do not occur take no memory.

    Attributes:
      labels, predictions: columns of each pair, ordered by label, then prediction.
      pixels: labelled and predicted so.
    """

    labels: Int64[np.ndarray, " k"]
    predictions: Int64[np.ndarray, " k"]
    pixels: Int64[np.ndarray, " k"]

    @classmethod
    def zeros(cls) -> Confusion:
        """Counts before the first photo."""
        return cls(*(np.zeros(0, np.int64) for _ in range(3)))

    def add(self, prediction: Int32[np.ndarray, "h w"], label: Int32[np.ndarray, "h w"], columns: int) -> Confusion:
        """The counts with one photo added; pixels labelled IGNORE_LABEL do not count."""
        labels, predictions, pixels = pairs_of(prediction, label, columns)
        pairs = np.concatenate([self.labels * columns + self.predictions, labels * columns + predictions])
        pairs, place = np.unique(pairs, return_inverse=True)
        total = np.zeros(len(pairs), np.int64)
        np.add.at(total, place, np.concatenate([self.pixels, pixels]))
        return Confusion(*np.divmod(pairs, columns), total)

    def share(self, labelled: Bool[np.ndarray, " n"], predicted: Bool[np.ndarray, " n"]) -> float:
        """Of the pixels labelled as one of these classes, the share predicted as one of those; NaN without any."""
        among = labelled[self.labels]
        pixels = self.pixels[among].sum()
        return float(self.pixels[among & predicted[self.predictions]].sum() / pixels) if pixels else float("nan")

    def worst(self, count: int, left_out: Sequence[int] = ()) -> list[Mistake]:
        """The pairs of different classes with the most pixels, the largest first; without some labels."""
        wrong = (self.labels != self.predictions) & ~np.isin(self.labels, list(left_out))
        places = np.flatnonzero(wrong)
        order = places[np.argsort(-self.pixels[places], kind="stable")][:count]
        return [Mistake(int(self.labels[i]), int(self.predictions[i]), int(self.pixels[i])) for i in order]


def pairs_of(
    prediction: Int32[np.ndarray, "h w"], label: Int32[np.ndarray, "h w"], columns: int
) -> tuple[Int64[np.ndarray, " k"], Int64[np.ndarray, " k"], Int64[np.ndarray, " k"]]:
    """The pairs (label, prediction) of a photo's pixels, each once, and of how many; without IGNORE_LABEL."""
    counted = label != IGNORE_LABEL
    of_pixels = label[counted].astype(np.int64) * columns + prediction[counted]
    if columns**2 <= _COUNTED:
        all_pixels = np.bincount(of_pixels, minlength=1)
        pairs = np.flatnonzero(all_pixels)
        pixels = all_pixels[pairs]
    else:
        pairs, pixels = np.unique(of_pixels, return_counts=True)
    labels, predictions = np.divmod(pairs, columns)
    return labels, predictions, pixels
