"""Label maps over very many classes: the best class of every pixel is searched for, no map of all is ever made."""

from __future__ import annotations

import functools

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Float32, Int32

from larvseg_jax.evaluation import sliding_window
from larvseg_jax.evaluation.config import EvalConfig
from larvseg_jax.evaluation.search_memory import Plan, plan_memory
from larvseg_jax.evaluation.tiles import AxisTiles, axis_tiles, rounded_up
from larvseg_jax.evaluation.top_classes import centred, top_classes
from larvseg_jax.methods.method import Vectors

SEARCHED_FROM = 500
"""Label sets of so many columns are searched; of fewer, all logits are stitched, band by band."""

_MEMORY = 3 << 29  # bytes that a search may take besides the vectors
_TILES = 8  # their number along a photo is made a multiple of this


class Search:
    """Features of a linear scorer in, label maps out; exact (`top_classes`), equal scores: the lowest class.

    Args:
      vectors: the classes that compete.
      config: how photos are cut and stitched.

    Attributes:
      vectors: the same on the first device of this process, where photos are searched.
    """

    def __init__(self, vectors: Vectors, config: EvalConfig) -> None:
        self.vectors = jax.jit(centred)(jax.device_put(jax.tree.map(np.asarray, vectors), jax.local_devices()[0]))
        self._config = config
        self._laid_out = functools.lru_cache(maxsize=64)(self._lay_out)  # photos of one size come again

    def __call__(
        self, features: Float32[np.ndarray, "n h w d"], test_size: tuple[int, int], size: tuple[int, int]
    ) -> Int32[np.ndarray, "H W"]:
        """Features of a photo's windows -> the best class of each pixel, at the photo's own `size` (H, W)."""
        stitched_size = size if self._config.resize == "logits" else test_size
        window_rows, rows, columns, plan = self._laid_out(features.shape[1:3], test_size, stitched_size)
        patches = jax.device_put(sliding_window.mosaic(features, window_rows), jax.local_devices()[0])
        labels = top_classes(jnp.asarray(patches), self.vectors, rows, columns, plan).labels[..., 0]
        return sliding_window.resize_label_map(labels, *size) if self._config.resize == "labels" else labels

    def _lay_out(
        self, grid: tuple[int, int], test_size: tuple[int, int], size: tuple[int, int]
    ) -> tuple[int, AxisTiles, AxisTiles, Plan]:
        stitching = self._config.windows.stitching(grid, test_size, size)
        rows, columns = rounded_up(axis_tiles(stitching.rows)), rounded_up(axis_tiles(stitching.columns), _TILES)
        plan = plan_memory(rows, columns, stitching.columns.shape[1], len(self.vectors.vectors), 1, _MEMORY)
        return stitching.window_rows, rows, columns, plan
