"""The patch features of a photo, and which of them a set of its pixels is made of."""

from __future__ import annotations

import dataclasses

import jax
import numpy as np
from jaxtyping import Float32, UInt8

from larvseg_jax.config import network_sections
from larvseg_jax.evaluation.sliding_window import mosaic
from larvseg_jax.evaluation.windows import Windows
from larvseg_jax.trained import Trained


@dataclasses.dataclass(frozen=True)
class PhotoPatches:
    """What the network makes of a photo.

    Attributes:
      features: unit features of the patches of all windows, side by side (`sliding_window.mosaic`).
      rows, columns: from the mosaic to the photo's pixels (`windows.Stitching`).
    """

    features: Float32[np.ndarray, "p q d"]
    rows: Float32[np.ndarray, "H p"]
    columns: Float32[np.ndarray, "W q"]

    def mean(self, pixels: Float32[np.ndarray, "H W"]) -> Float32[np.ndarray, " d"]:
        """The mean of the features, upsampled to pixels, with the weights `pixels`; 0 where these are 0.

        Upsampling is linear, so the weights go down to the patches instead.
        """
        patches = self.rows.T @ pixels @ self.columns
        total = patches.sum()
        return np.einsum("pq,pqd->d", patches, self.features) / (total if total > 0 else 1.0)

    def scores(self, vector: Float32[np.ndarray, " d"]) -> Float32[np.ndarray, "p q"]:
        """Product of every patch with a vector."""
        return self.features @ vector


class PatchReader:
    """Photos -> PhotoPatches, by a trained model; photos of one size share their compiled program."""

    def __init__(self, trained: Trained, windows: Windows | None = None) -> None:
        self._windows = windows or trained.windows
        self._patch = network_sections(trained.settings)[1].patch_size
        self._embed = jax.jit(lambda window: trained.method.embed(trained.params, window))

    def __call__(self, image: UInt8[np.ndarray, "H W 3"]) -> PhotoPatches:
        """Of an RGB photo."""
        windows = self._windows.cut(image, self._patch)
        found = np.stack([np.asarray(self._embed(window[None]))[0] for window in windows])
        size = image.shape[:2]
        stitching = self._windows.stitching(found.shape[1:3], self._windows.test_size(size), size, self._patch)
        return PhotoPatches(mosaic(found, stitching.window_rows), stitching.rows, stitching.columns)
