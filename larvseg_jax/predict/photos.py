"""The photos that a prediction was asked for: found and measured; what cannot be is said and stops no other."""

from __future__ import annotations

import os
import stat
from collections.abc import Iterator, Sequence
from pathlib import Path

from data_pipelines.files import PICTURES, entries, is_folder
from data_pipelines.picture_files import check_sides, size_of
from larvseg_jax.console import first_few, printable
from larvseg_jax.errors import UserError
from larvseg_jax.predict.names import is_part_of_prediction
from larvseg_jax.predict.pictures import check_is_path

# What may be read besides, and what people take for photos: tried, so that none is left out silently.
_OF_OPENCV = (".jpe", ".jfif", ".dib", ".pbm", ".pgm", ".ppm", ".pnm", ".pam", ".sr", ".ras", ".gif", ".jp2", ".avif")
_TRIED = (*PICTURES, *_OF_OPENCV, ".heic", ".heif", ".jxl")


def find_photos(paths: Sequence[Path]) -> tuple[list[Path], list[UserError]]:
    """The photos given, and those in and below the folders given, by name, each once; and what is wrong with the rest.

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
    photos, others, predictions = [], [], 0
    for file in _below(folder, set()):
        if file.suffix.lower() not in _TRIED:
            others.append(str(file.relative_to(folder)))
        elif is_part_of_prediction(file):
            predictions += 1
        else:
            photos.append(file)
    if not photos:
        there = f"only {first_few(sorted(map(printable, others)), 3)}" if others else "nothing"
        there = "only predictions" if predictions else there
        raise UserError(
            f"{printable(folder)} has no pictures ({', '.join(PICTURES)}), {there}: give a folder that has some"
        )
    return photos


def _below(folder: Path, seen: set[str]) -> Iterator[Path]:
    """The files in a folder and then in those in it, by name; each folder once, whatever links lead to it."""
    seen.add(os.path.realpath(folder))
    folders = []
    for entry in sorted(entries(folder), key=lambda entry: entry.name):
        if is_folder(entry):
            folders.append(folder / entry.name)
        else:
            yield folder / entry.name
    for inner in folders:
        if os.path.realpath(inner) not in seen:
            yield from _below(inner, seen)


def _check_file(path: Path) -> None:
    """Whether there is something to read, which no pipe or device is; whether it is a picture shows when it is read."""
    check_is_path(str(path))
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
