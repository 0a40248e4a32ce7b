"""How the oracle test segments a photo: by cosines to the features of a few of its own labelled pixels.

Unit patch features are interpolated to the size of the label and brought to norm 1 again, but never as an array
(a photo of 512 x 683 pixels would take 1 GB). With p_i the features of patch i and a_i(x) its bilinear weight at
pixel x,

    f(x) = sum_i a_i(x) p_i ,   |f(x)|² = sum_ij a_i(x) a_j(x) p_i·p_j ,   cos(f(x), v) = sum_i a_i(x) p_i·v / |f(x)|

so it is enough to interpolate products: of every patch with v, and with the patches that touch it.
"""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Mapping

import cv2
import numpy as np
from jaxtyping import Bool, Float32, Int32, Int64

from larvseg_jax.models.resize import bilinear_matrix

_LEAST_SQUARED_NORM = 1e-12  # where opposite neighbours cancel there is no direction; any finite score will do


@dataclasses.dataclass(frozen=True)
class Drawing:
    """How pixels are drawn: `points` of every class of a photo, all anew `repeats` times."""

    points: int = 1
    repeats: int = 5
    seed: int = 0

    def pixels(
        self, label: Int32[np.ndarray, "h w"], column: int, repeat: int, photo: int
    ) -> Int64[np.ndarray, " points"]:
        """Random pixels of a class as positions in the flattened label; all of them if there are fewer.

        A function of seed, repeat, number of the photo and class: other photos, classes and the order of
        work change nothing. `Original:` one generator for all.
        """
        of_class = np.flatnonzero(label == column)
        rng = np.random.default_rng((self.seed, repeat, photo, column))
        return rng.choice(of_class, min(self.points, len(of_class)), replace=False)


@dataclasses.dataclass(frozen=True)
class PixelFeatures:
    """Unit features of every pixel, as patches and what interpolates them.

    Attributes:
      patches: unit patch features.
      rows, columns: bilinear matrices from the patch grid to the pixels. `Original:` as here, the grid of a
        photo padded to whole patches is stretched onto the unpadded size.
      norm: of the interpolated features, before they are brought to norm 1.
    """

    patches: Float32[np.ndarray, "h w d"]
    rows: Float32[np.ndarray, "H h"]
    columns: Float32[np.ndarray, "W w"]
    norm: Float32[np.ndarray, "H W"]

    @classmethod
    def of(cls, patches: Float32[np.ndarray, "h w d"], size: tuple[int, int]) -> PixelFeatures:
        """Features of `size` = (H, W) pixels."""
        rows, columns = (bilinear_matrix(n, out) for n, out in zip(patches.shape[:2], size, strict=True))
        squared = np.maximum(_squared_norm(patches, rows, columns), np.float32(_LEAST_SQUARED_NORM))
        return cls(patches, rows, columns, np.sqrt(squared))

    def at(self, pixels: Int64[np.ndarray, " n"]) -> Float32[np.ndarray, "n d"]:
        """Unit features of pixels given by their positions in the flattened map."""
        y, x = np.divmod(pixels, len(self.columns))
        weights = self.rows[y][:, :, None] * self.columns[x][:, None, :]
        mixed = weights.reshape(len(pixels), -1) @ self.patches.reshape(-1, self.patches.shape[-1])
        return mixed / self.norm[y, x][:, None]

    def greatest_cosine(self, vectors: Float32[np.ndarray, "n d"]) -> Float32[np.ndarray, "H W"]:
        """The greatest of every pixel's cosines to n unit vectors."""
        h, w, d = self.patches.shape
        size = len(self.columns), len(self.rows)
        products = (vectors @ self.patches.reshape(-1, d).T).reshape(-1, h, w)
        # OpenCV does what the matrices do, several times as fast, and one map at a time stays in the cache.
        maps = (cv2.resize(product, size, interpolation=cv2.INTER_LINEAR) for product in products)
        return functools.reduce(np.maximum, maps) / self.norm


def _squared_norm(
    patches: Float32[np.ndarray, "h w d"], rows: Float32[np.ndarray, "H h"], columns: Float32[np.ndarray, "W w"]
) -> Float32[np.ndarray, "H W"]:
    """|f(x)|²: every pair of patches that touch, once with each other's weight and once the other way round."""
    h, w = patches.shape[:2]
    total = np.zeros((len(rows), len(columns)), np.float32)
    for down, right in ((0, 0), (0, 1), (1, 0), (1, 1)):
        products = np.einsum("hwd,hwd->hw", patches[: h - down, : w - right], patches[down:, right:])
        if down and right:  # the other diagonal
            products += np.einsum("hwd,hwd->hw", patches[: h - 1, 1:], patches[1:, : w - 1])
        pairs = (rows[:, : h - down] * rows[:, down:]) @ products @ (columns[:, : w - right] * columns[:, right:]).T
        total += pairs if (down, right) == (0, 0) else 2 * pairs
    return total


def label_map(
    features: PixelFeatures,
    drawn: Mapping[int, Int64[np.ndarray, " _points"]],
    competing: Bool[np.ndarray, " n"],
    size: tuple[int, int],
) -> Int32[np.ndarray, "H W"]:
    """The label map of a photo at its own `size`.

    Args:
      features: of the photo at test scale.
      drawn: pixels of each class in the label. Those of classes that do not compete are not looked at.
      competing: the classes that can be predicted.
      size: (H, W).

    Among equal scores the lowest class wins; hence of the classes not drawn, all 0, only the first is needed.
    """
    absent = next((c for c in np.flatnonzero(competing).tolist() if c not in drawn), None)
    best = np.full(size, -np.inf, np.float32)
    winner = np.zeros(size, np.int32)
    for column in np.flatnonzero(competing).tolist():
        if column in drawn:
            score = features.greatest_cosine(features.at(drawn[column]))
            score = cv2.resize(score, size[::-1], interpolation=cv2.INTER_LINEAR)
        elif column == absent:
            score = np.zeros(size, np.float32)
        else:
            continue
        np.copyto(winner, np.int32(column), where=score > best)
        np.maximum(best, score, out=best)
    return winner
