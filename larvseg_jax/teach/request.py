"""What somebody wants taught, checked before anything is computed: a name, photos, and what of them shows the class."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Bool
from PIL import Image

from data_pipelines.decode import decode_mask
from data_pipelines.files import read_bytes
from larvseg_jax.console import printable
from larvseg_jax.errors import DataError, UserError
from larvseg_jax.vocabulary import Vocabulary

Points = Any
"""A list of pairs (x, y) in pixels of a photo as it is shown, from its upper left corner."""


def check_new(words: Vocabulary, name: str) -> None:
    """UserError for a name that is none, or that the model has for something."""
    if not name.strip():
        raise UserError("the class has no name: give it one")
    if name in words.classes or any(name == other for other, _ in words.aliases):
        raise UserError(f"this model knows {name!r} already: take another name, or remove that class first")


def check_lists(
    photos: Sequence[Any], points: Sequence[Points] | None = None, masks: Sequence[Any] | None = None
) -> None:
    """UserError if there are not as many points or masks as photos, both are given, or there is no photo."""
    for what, given in (("photos", photos), ("masks", masks)):
        if given is not None and not isinstance(given, (list, tuple)):
            raise UserError(f"{what} cannot be a {type(given).__name__}: give a list, with one entry for each photo")
    if not photos:
        raise UserError("there is no photo of the class: give one that shows it")
    if points is not None and masks is not None:
        raise UserError("points and masks are given: leave one of the two out")
    for what, all_given in (("lists of points", points), ("masks", masks)):
        if all_given is not None and len(all_given) != len(photos):
            raise UserError(f"there are {len(all_given)} {what} for {len(photos)} photos: give one for each photo")


def names_of(photos: Sequence[Any]) -> list[str]:
    """What messages call the photos: their place among all, and the path of those that are files."""
    paths = [f" ({printable(photo)})" if isinstance(photo, (str, os.PathLike)) else "" for photo in photos]
    return [f"photo {number} of {len(photos)}{path}" for number, path in enumerate(paths, 1)]


def pixels_shown(
    names: Sequence[str],
    sizes: Sequence[tuple[int, int]],
    points: Sequence[Points] | None = None,
    masks: Sequence[Any] | None = None,
) -> list[Bool[np.ndarray, "_h _w"]] | None:
    """Of each photo the pixels that show the class; None where neither points nor masks say.

    Args:
      names: of the photos, for messages.
      sizes: (height, width) of each.
      points: for each photo pixels that show the class.
      masks: for each photo what `read_mask` takes.

    Raises:
      UserError: one of them does not fit its photo, or marks nothing in it.
    """
    if masks is not None:
        found = [read_mask(mask, *size, name) for mask, size, name in zip(masks, sizes, names, strict=True)]
    elif points is not None:
        found = [at_points(given, *size, name) for given, size, name in zip(points, sizes, names, strict=True)]
    else:
        return None
    for name, pixels in zip(names, found, strict=True):
        if not pixels.any():
            raise UserError(f"{name}: no pixel of the class is marked: mark some, or leave the photo out")
    return found


def read_mask(mask: Any, height: int, width: int, photo: str) -> Bool[np.ndarray, "H W"]:
    """Where a mask is not zero.

    Args:
      mask: path of a picture of class ids, PIL image of one channel, or array (height, width) of numbers or truths.
      height, width: of its photo, which it must have.
      photo: what messages call it.

    Raises:
      UserError: it cannot be read, has other channels or another size.
    """
    name = "its mask"
    if isinstance(mask, (str, os.PathLike)):
        path = Path(mask).expanduser()
        name = f"its mask {printable(path)}"
        if not path.is_file():
            raise UserError(f"{photo}: there is no mask {printable(path)}: give the path of a picture")
        try:
            values = decode_mask(read_bytes(path), printable(path))
        except DataError as error:
            raise UserError(f"{photo}: {error.what}: {error.remedy}") from error
    else:
        values = np.asarray(mask) if isinstance(mask, Image.Image) else mask
    if not isinstance(values, np.ndarray) or values.dtype.kind not in "biuf":
        kind = type(mask).__name__
        raise UserError(f"{photo}: a mask cannot be a {kind}: give a path, a PIL image or an array (height, width)")
    if values.ndim != 2:
        raise UserError(f"{photo}: {name} has shape {values.shape}: give one of one channel, (height, width)")
    if values.shape != (height, width):
        raise UserError(
            f"{photo} has {width} x {height} pixels, {name} {values.shape[1]} x {values.shape[0]}: "
            "give a mask of the photo's size, as the photo is shown"
        )
    return values != 0


def at_points(points: Points, height: int, width: int, photo: str) -> Bool[np.ndarray, "H W"]:
    """The pixels that points lie in; UserError if one lies outside of the photo."""
    pixels = np.zeros((height, width), bool)
    if not isinstance(points, (list, tuple, np.ndarray)):
        raise UserError(f"{photo}: {points!r} is no list of points: give a list of (x, y) for each photo")
    for point in points:
        try:
            x, y = (float(value) for value in point)
        except (TypeError, ValueError):
            raise UserError(f"{photo}: {point!r} is no point: give a list of (x, y) for each photo") from None
        if not (0 <= x < width and 0 <= y < height):
            raise UserError(
                f"{photo} has {width} x {height} pixels, and the point ({x:g}, {y:g}) is not in it: give x, y in pixels"
            )
        pixels[int(y), int(x)] = True
    return pixels
