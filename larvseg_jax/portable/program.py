"""From the pixels of a photo of one size to its label map, as one function of JAX (docs/exports.md).

What `predict` does, with the photo's size fixed and all classes at every pixel at once: normalise, cut into windows,
score the patches, stitch the scores (evaluation/sliding_window.py), take the best class.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Sequence

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Int32, UInt8

from data_pipelines.transforms import MEAN, STD
from larvseg_jax.config import network_sections
from larvseg_jax.errors import UserError
from larvseg_jax.evaluation.sliding_window import mosaic, window_starts
from larvseg_jax.methods.method import grid_of
from larvseg_jax.models.precision import precise_einsum
from larvseg_jax.trained import Trained

LARGEST = 1 << 29
"""Scores of all classes at all pixels, 2 GiB."""

Program = Callable[[UInt8[Array, "H W 3"]], Int32[Array, "H W"]]


def photo_program(trained: Trained, classes: Sequence[str], size: tuple[int, int]) -> Program:
    """The function from a photo of one size to the index of the best class at each pixel.

    Windows are those of the model's evaluation, but the photo is not resized: its size is that which the network sees.

    Args:
      trained: the model, whose weights become constants of the function.
      classes: names of those that compete, in the order of the indices.
      size: height and width.

    Raises:
      UserError: the scores of all classes at all pixels are too many.
    """
    if size[0] * size[1] * len(classes) > LARGEST:
        raise UserError(
            f"{len(classes)} classes at {size[0]} x {size[1]} pixels are more than {LARGEST:,} scores, which are all "
            "held at once: choose fewer classes or a smaller size"
        )
    windows = dataclasses.replace(trained.windows, scale=(max(size), min(size)))
    patch = network_sections(trained.settings)[1].patch_size
    side = windows.window
    rows, columns = (window_starts(length, side, windows.stride) for length in size)
    scorer = trained.scorer(trained.vocabulary.label_set(tuple(classes)))
    grid = grid_of(scorer.scores, trained.params, trained.memory, (side, side))
    stitching = windows.stitching(grid, size, size, patch)

    def label_map(photo: UInt8[Array, "H W 3"]) -> Int32[Array, "H W"]:
        mean, std = (values.astype(np.float32)[None, None] for values in (MEAN, STD))
        pixels = (photo.astype(jnp.float32) - mean) / std
        pixels = jnp.pad(pixels, [*((0, max(side - length, 0)) for length in size), (0, 0)])
        cut = jnp.stack([pixels[y : y + side, x : x + side] for y in rows for x in columns])
        scores = scorer.scores(trained.params, trained.memory, cut)
        maps = precise_einsum(
            "yp,pqn,xq->yxn", stitching.rows, mosaic(scores, stitching.window_rows), stitching.columns
        )
        return jnp.argmax(maps, axis=-1).astype(jnp.int32)

    return label_map


def example_photo(size: tuple[int, int]) -> jax.ShapeDtypeStruct:
    """What the function takes."""
    return jax.ShapeDtypeStruct((*size, 3), np.uint8)
