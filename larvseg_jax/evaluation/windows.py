"""How a photo becomes windows for the network, and what the network says of windows a map of the photo."""

from __future__ import annotations

import dataclasses
from typing import NamedTuple

import numpy as np
from jaxtyping import Float32, UInt8

from data_pipelines import transforms
from larvseg_jax.errors import UserError
from larvseg_jax.evaluation.sliding_window import cut_windows, stitch_matrix, window_starts


class Stitching(NamedTuple):
    """From the patch grids of a photo's windows to a map: maps = rows Z columns^T, Z their mosaic.

    Attributes:
      window_rows: how many rows of windows there are; the mosaic is laid by them (`sliding_window.mosaic`).
      rows, columns: one matrix per axis (`sliding_window.stitch_matrix`).
    """

    window_rows: int
    rows: Float32[np.ndarray, "H p"]
    columns: Float32[np.ndarray, "W q"]


@dataclasses.dataclass(frozen=True)
class Windows:
    """Sizes in pixels.

    Attributes:
      scale: (long side, short side) limits of the resized photo; aspect ratio kept.
      window, stride: of the sliding window; window 0: the whole photo at once, filled up to whole patches.
    """

    scale: tuple[int, int] = (2048, 512)
    window: int = 512
    stride: int = 512

    def __post_init__(self) -> None:
        if min(self.scale) < 1:
            raise UserError(f"scale is {self.scale}: give two sides in pixels, such as (2048, 512)")
        if self.window and not 0 < self.stride <= self.window:
            raise UserError(f"stride is {self.stride}: choose 1 to window = {self.window}")

    def test_size(self, size: tuple[int, ...]) -> tuple[int, int]:
        """Height and width of the resized photo, for a photo of `size` = (height, width, ...)."""
        return transforms.resized_shape(size[0], size[1], self.scale)

    def sides(self, test_size: tuple[int, int], patch: int = 1) -> tuple[int, int]:
        """Height and width of a window: whole patches of `patch` pixels where the photo is one window."""
        height, width = (self.window or length + -length % patch for length in test_size)
        return height, width

    def cut(self, image: UInt8[np.ndarray, "H W 3"], patch: int = 1) -> Float32[np.ndarray, "n h w 3"]:
        """The windows of an RGB photo, resized and normalised, row by row; all of one shape.

        A side shorter than the window is padded with zeros at the bottom or right after normalisation, so that
        there is one static shape. `Original:` runs such a window as it is (aspect ratios over 4 only).
        """
        pixels = transforms.eval_transform(image, self.scale)
        sides = self.sides(pixels.shape[:2], patch)
        # Without windows the photo is one window, cut as if it were as long as its longer side.
        side, stride = (self.window, self.stride) if self.window else (max(sides), max(sides))
        windows = cut_windows(pixels, side, stride)
        missing = [(0, wanted - has) for wanted, has in zip(sides, windows.shape[1:3], strict=True)]
        return np.pad(windows, [(0, 0), *missing, (0, 0)])

    def stitching(
        self, grid: tuple[int, ...], test_size: tuple[int, int], size: tuple[int, ...], patch: int = 1
    ) -> Stitching:
        """How the patch grids of windows (each `grid` = (h, w)) become a map of `size` = (height, width)."""
        sides = self.sides(test_size, patch)
        strides = (self.stride, self.stride) if self.window else sides
        rows, columns = (
            stitch_matrix(length, window, stride, patches, out, padded=True)
            for length, window, stride, patches, out in zip(test_size, sides, strides, grid, size[:2], strict=True)
        )
        return Stitching(len(window_starts(test_size[0], sides[0], strides[0])), rows, columns)
