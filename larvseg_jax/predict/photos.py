"""The photos that a prediction was asked for: found, measured, read; what cannot be is said and stops no other."""

from __future__ import annotations

import os
import stat
from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np
from jaxtyping import UInt8

from data_pipelines.decode import decode_image
from data_pipelines.files import PICTURES, entries, read_bytes
from data_pipelines.picture_files import REPLACE, check_sides, size_of
from larvseg_jax.console import first_few, printable
from larvseg_jax.errors import DataError, UserError
from larvseg_jax.predict.names import is_part_of_prediction

# Pictures that some libraries read, or that people take for photos: tried, so that none is left out silently.
_TRIED = (*PICTURES, ".heic", ".heif", ".avif", ".gif", ".jp2", ".jxl")


def find_photos(paths: Sequence[Path]) -> tuple[list[Path], list[UserError]]:
    """The photos given, and those of the folders given, by name, each once; and what is wrong with the rest.

    Hidden files and the files of earlier predictions are no photos.
    """
    photos: dict[str, Path] = {}
    problems: list[UserError] = []
    for path in paths:
        try:
            candidates = _inside(path) if path.is_dir() else [path]
        except UserError as error:
            problems.append(error)
            continue
        for photo in candidates:
            try:
                _check_file(photo)
            except UserError as error:
                problems.append(error)
            else:
                photos.setdefault(os.path.abspath(photo), photo)
    return list(photos.values()), problems


def _inside(folder: Path) -> list[Path]:
    names, others, predictions = [], [], 0
    for entry in entries(folder):
        if Path(entry.name).suffix.lower() not in _TRIED:
            others.append(entry.name)
        elif is_part_of_prediction(folder / entry.name):
            predictions += 1
        else:
            names.append(entry.name)
    if not names:
        there = f"only {first_few(sorted(map(printable, others)), 3)}" if others else "nothing"
        there = "only predictions" if predictions else there
        raise UserError(
            f"{printable(folder)} has no pictures ({', '.join(PICTURES)}), {there}: give a folder that has some"
        )
    return [folder / name for name in sorted(names)]


def _check_file(path: Path) -> None:
    """Whether there is something to read, which no pipe or device is; whether it is a picture shows when it is read."""
    try:
        mode = path.stat().st_mode
    except (OSError, ValueError):
        if path.is_symlink():
            raise UserError(f"{printable(path)}: a link to a file that is not there: restore or remove it") from None
        remedy = "give the path of a photo or of a folder of photos"
        raise UserError(f"there is no picture {printable(path)}: {remedy}") from None
    if not (stat.S_ISREG(mode) or stat.S_ISDIR(mode)):
        raise UserError(f"{printable(path)}: is a pipe or a device and no file: save the picture first")


def sizes(photos: Sequence[Path], max_megapixels: int) -> Iterator[tuple[int, int]]:
    """Height and width of the photos that can be read and are not too large, before any turning."""
    for photo in photos:
        try:
            size = size_of(_head(photo))
            if size is None:
                continue
            check_sides(*size, "", max_megapixels)  # not check_size, which wants the whole file
        except (OSError, UserError):  # said when it is read
            continue
        yield size


def _head(photo: Path) -> bytes:
    """As much of a file as says its size; all of it where the first part does not."""
    with open(photo, "rb") as file:
        head = file.read(1 << 16)
        return head if size_of(head) is not None else head + file.read()


def read_photo(path: Path, max_megapixels: int) -> UInt8[np.ndarray, "h w 3"]:
    """A photo as RGB, turned as its EXIF tag says; UserError with a remedy for one photo among others."""
    name = printable(path)
    if path.is_dir():
        raise UserError(f"{name}: is a folder and no file: give it as --image to predict the photos in it")
    try:
        return decode_image(read_bytes(path), name, max_megapixels)
    except DataError as error:
        what = error.what.replace(str(path), name)
        raise UserError(f"{what}: {'give another photo' if error.remedy == REPLACE else error.remedy}") from error
