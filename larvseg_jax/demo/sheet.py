"""One picture of several predictions: every photo, below it the same with its classes coloured, and their names."""

from __future__ import annotations

import json
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

_HEIGHT = 200  # pixels of a photo
_WIDEST = 400
_GAP = 6
_LINE = 20
_NAMED = 3  # classes below a photo
_ACROSS = 5


def write_sheet(predictions: Mapping[Path, Path], to: Path) -> None:
    """Writes a JPEG of photos and what `predict` has written of them.

    Args:
      predictions: photo -> the file of its overlay, beside which label map and JSON lie.
      to: the file to write; replaced.

    Raises:
      UserError: it cannot be written.
    """
    columns = [_column(photo, target) for photo, target in predictions.items()]
    rows = [columns[start : start + _ACROSS] for start in range(0, len(columns), _ACROSS)]
    page = Image.new("RGB", (max(map(_width, rows)), sum(row[0].height for row in rows)), "white")
    for number, row in enumerate(rows):
        left = 0
        for column in row:
            page.paste(column, (left, number * column.height))
            left += column.width + _GAP
    try:
        page.save(to, "JPEG", quality=90)
    except OSError as error:
        raise UserError(f"cannot write {to} ({error.strerror}): give another --out") from error


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
    largest = [(values[i], counts[i] / labels.size) for i in np.argsort(-counts, kind="stable")[:_NAMED]]
    for line, (label, share) in enumerate(largest):
        top = 2 * _HEIGHT + _GAP + line * _LINE + 3
        draw.rectangle((2, top, 14, top + 12), fill=tuple(class_colours([names[label]])[0].tolist()))
        name = names[label] if can_draw(names[label]) else f"class {label}"
        draw_text(draw, (20, top - 2), f"{name} {100 * share:.0f} %", width - 20, SIZE)
    return page
