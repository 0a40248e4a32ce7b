"""One picture of several predictions: every photo, below it the same with its classes coloured, and their names."""

from __future__ import annotations

import contextlib
import itertools
import json
import os
from collections.abc import Iterable, Mapping
from pathlib import Path

import numpy as np
from PIL import Image, ImageDraw

from larvseg_jax.errors import UserError
from larvseg_jax.predict.names import label_file, text_file
from larvseg_jax.predict.pictures import read_photo
from larvseg_jax.report.colours import class_colours, overlay
from larvseg_jax.report.lettering import SIZE, can_draw, draw_text
from larvseg_jax.vocabulary import IGNORE_LABEL

BACKGROUND = "background"

MOST = 25
"""Photos on a sheet."""

_HEIGHT = 200  # pixels of a photo
_WIDEST = 400
_GAP = 6
_LINE = 20
_NAMED = 3  # classes below a photo
_SHOWN_FROM = 0.005  # of the photo: less would be "0 %"
_ACROSS = 5
_MARK = b"larvseg demo"  # the comment in a file that may be replaced


def write_sheet(predictions: Mapping[Path, Path], to: Path) -> Path | None:
    """Writes a JPEG of photos and what `predict` has written of them, the first `MOST` of those that can be read.

    Returns its path, None if it would show nothing.

    Args:
      predictions: photo -> the file of its overlay, beside which label map and JSON lie.
      to: the file to write; an earlier sheet is replaced, of anything else of that name the sheet is called sheet_2.

    Raises:
      UserError: it cannot be written.
    """
    columns: list[Image.Image] = []
    for photo, target in predictions.items():
        with contextlib.suppress(UserError):  # broken since an earlier prediction: `predict` has said so
            columns.append(_column(photo, target))
        if len(columns) == MOST:
            break
    if not columns:
        return None
    to = _free(to)
    rows = [columns[start : start + _ACROSS] for start in range(0, len(columns), _ACROSS)]
    page = Image.new("RGB", (max(map(_width, rows)), sum(row[0].height for row in rows)), "white")
    for number, row in enumerate(rows):
        left = 0
        for column in row:
            page.paste(column, (left, number * column.height))
            left += column.width + _GAP
    try:
        page.save(to, "JPEG", quality=90, comment=_MARK)
    except OSError as error:
        raise UserError(f"cannot write {to} ({error.strerror}): give another --out") from error
    return to


def _free(path: Path) -> Path:
    """The path, or with a number behind its name, at which nothing is or an earlier sheet."""
    numbered = (path.with_stem(f"{path.stem}_{number}") for number in itertools.count(2))
    return next(place for place in itertools.chain([path], numbered) if not os.path.lexists(place) or is_sheet(place))


def is_sheet(file: Path) -> bool:
    """Whether a file is what `write_sheet` has written."""
    try:
        with Image.open(file) as picture:
            return picture.info.get("comment") == _MARK
    except (OSError, ValueError, Image.DecompressionBombError):
        return False


def _width(row: Iterable[Image.Image]) -> int:
    widths = [column.width for column in row]
    return sum(widths) + _GAP * (len(widths) - 1)


def _column(photo: Path, target: Path) -> Image.Image:
    """A photo, its segmentation, and the names of its largest classes."""
    names = json.loads(text_file(target).read_text("utf-8"))["names"]
    image = read_photo(photo)
    width = min(max(round(image.shape[1] * _HEIGHT / image.shape[0]), 1), _WIDEST)
    small = np.asarray(Image.fromarray(image).resize((width, _HEIGHT), Image.Resampling.LANCZOS))
    with Image.open(label_file(target)) as file:
        labels = np.asarray(file.resize((width, _HEIGHT), Image.Resampling.NEAREST)).astype(np.int32)
    clear = names.index(BACKGROUND) if BACKGROUND in names else IGNORE_LABEL
    page = Image.new("RGB", (width, 2 * _HEIGHT + _GAP + _NAMED * _LINE + _GAP), "white")
    page.paste(Image.fromarray(small), (0, 0))
    page.paste(Image.fromarray(overlay(small, labels, class_colours(names), clear)), (0, _HEIGHT + _GAP))
    draw = ImageDraw.Draw(page)
    values, counts = np.unique(labels[labels != clear], return_counts=True)
    order = [i for i in np.argsort(-counts, kind="stable")[:_NAMED] if counts[i] >= _SHOWN_FROM * labels.size]
    largest = [(values[i], counts[i] / labels.size) for i in order]
    for line, (label, share) in enumerate(largest):
        top = 2 * _HEIGHT + _GAP + line * _LINE + 3
        draw.rectangle((2, top, 14, top + 12), fill=tuple(class_colours([names[label]])[0].tolist()))
        name = names[label] if can_draw(names[label]) else f"class {label}"
        draw_text(draw, (20, top - 2), f"{name} {100 * share:.0f} %", width - 20, SIZE)
    return page
