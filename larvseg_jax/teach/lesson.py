"""A lesson: photos of a class and what of them shows it, however people give that, and the model that knows it."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Bool, Float32, UInt8
from PIL import Image

from data_pipelines.decode import decode_mask
from data_pipelines.files import read_bytes
from larvseg_jax.console import printable
from larvseg_jax.errors import DataError, UserError
from larvseg_jax.evaluation.windows import Windows
from larvseg_jax.methods.method import as_linear
from larvseg_jax.teach.join import check_new, with_class
from larvseg_jax.teach.patches import PatchReader, PhotoPatches
from larvseg_jax.teach.vectors import of_pixels, of_tags, of_things
from larvseg_jax.trained import Trained

Points = Sequence[Any]
"""Pairs (x, y) in pixels of a photo, from its upper left corner."""


def taught(
    trained: Trained,
    windows: Windows,
    name: str,
    photos: Sequence[UInt8[np.ndarray, "H W 3"]],
    points: Sequence[Points] | None = None,
    masks: Sequence[Any] | None = None,
) -> Trained:
    """The model with one more class, the last, among the novel ones.

    Args:
      trained: the model.
      windows: how photos are resized and cut.
      name: of the class.
      photos: RGB, each shows it.
      points: of each photo, pixels that show it; None: none were given.
      masks: of each photo, as `read_mask` takes it; None likewise. With neither, what all photos share is taken.

    Raises:
      UserError: the name is taken, there are not as many points or masks as photos, both are given, one of them does
        not fit its photo, or nothing can be learnt from them.
    """
    check_new(trained.vocabulary, name)
    if points is not None and masks is not None:
        raise UserError("points and masks are given: leave one of the two out")
    if not photos:
        raise UserError("there is no photo of the class: give one that shows it")
    pixels: list[Bool[np.ndarray, "H W"]] | None = None
    if masks is not None:
        _check_number(len(masks), len(photos), "masks")
        pixels = [read_mask(mask, *photo.shape[:2]) for mask, photo in zip(masks, photos, strict=True)]
    if points is not None:
        _check_number(len(points), len(photos), "lists of points")
        pixels = [at_points(given, *photo.shape[:2]) for given, photo in zip(points, photos, strict=True)]
    read = PatchReader(trained, windows)
    seen = [read(photo) for photo in photos]
    return with_class(trained, name, of_tagged(trained, seen) if pixels is None else of_pixels(seen, pixels))


def of_tagged(trained: Trained, photos: Sequence[PhotoPatches]) -> Float32[np.ndarray, " d"]:
    """The vector of a class that photos show somewhere: what of them the model does not take for background.

    Where it has no background, or sees nothing else, what the photos have in common (`vectors.of_tags`).
    """
    words = trained.vocabulary
    if words.background:
        learnt, background = class_vectors(trained), words.row(words.background)
        vector = of_things(photos, [(photo.features @ learnt.T).argmax(-1) != background for photo in photos])
        if vector is not None:
            return vector
    return of_tags(photos)


def class_vectors(trained: Trained, names: Sequence[str] = ()) -> Float32[np.ndarray, "n d"]:
    """Unit vectors of classes that the model knows; without names of all, row by row."""
    label_set = trained.vocabulary.label_set(names)
    scorer = as_linear(trained.method.scorer(label_set), label_set)
    return np.asarray(scorer.vectors(trained.params, trained.memory).vectors)


def read_mask(mask: Any, height: int, width: int) -> Bool[np.ndarray, "H W"]:
    """Where a mask is not zero.

    Args:
      mask: path of a picture of class ids, PIL image of one channel, or array (height, width) of numbers or truths.
      height, width: of its photo, which it must have.

    Raises:
      UserError: it cannot be read, has other channels or another size.
    """
    name = "a mask"
    if isinstance(mask, (str, os.PathLike)):
        path = Path(mask).expanduser()
        name = printable(path)
        if not path.is_file():
            raise UserError(f"there is no mask {name}: give the path of a picture")
        try:
            values = decode_mask(read_bytes(path), name)
        except DataError as error:
            raise UserError(f"{error.what}: {error.remedy}") from error
    else:
        values = np.asarray(mask) if isinstance(mask, Image.Image) else mask
    if not isinstance(values, np.ndarray) or values.dtype.kind not in "biuf":
        raise UserError(
            f"a mask cannot be a {type(mask).__name__}: give a path, a PIL image or an array (height, width)"
        )
    if values.shape != (height, width):
        shape = " x ".join(map(str, values.shape))
        raise UserError(f"{name} has shape {shape}, its photo {height} x {width}: give one of the photo's size")
    return values != 0


def at_points(points: Points, height: int, width: int) -> Bool[np.ndarray, "H W"]:
    """The pixels that points lie in; UserError if one lies outside of the photo."""
    pixels = np.zeros((height, width), bool)
    for point in points:
        try:
            x, y = (float(value) for value in point)
        except (TypeError, ValueError):
            raise UserError(f"{point!r} is no point: give a list of (x, y) for each photo") from None
        if not (0 <= x < width and 0 <= y < height):
            raise UserError(f"the point ({x:g}, {y:g}) is not in its photo of {width} x {height} pixels: give (x, y)")
        pixels[int(y), int(x)] = True
    return pixels


def _check_number(given: int, photos: int, what: str) -> None:
    if given != photos:
        raise UserError(f"there are {given} {what} for {photos} photos: give as many")
