"""The files of a prediction (overlay with legend, label map, JSON), and its table on the terminal."""

from __future__ import annotations

import json
import os
import tempfile
from pathlib import Path

import cv2
import numpy as np
from jaxtyping import UInt8
from PIL import Image, ImageDraw
from rich.table import Table
from rich.text import Text

from larvseg_jax.console import printable
from larvseg_jax.errors import UserError
from larvseg_jax.predict.names import in_utf8, label_file, text_file
from larvseg_jax.predict.segmentation import Segmentation
from larvseg_jax.report.colours import overlay, palette
from larvseg_jax.report.lettering import can_draw, draw_text

_SHOWN = 20  # classes in the legend and in the table
_LEGEND_WIDTH = 300
_LINE = 22
_OVERLAY_PIXELS = 32_000_000  # of a larger photo the overlay is scaled down to so many
_ROWS = 256  # of the overlay that are coloured at a time
_WHITE, _BLACK = (255, 255, 255), (0, 0, 0)


def write(target: Path, photo: Path, image: UInt8[np.ndarray, "h w 3"], found: Segmentation, model: str) -> list[Path]:
    """Writes overlay, label map (16 bits, the best class) and JSON beside it; returns their paths.

    Each file is there whole or not at all, also if this is interrupted.
    """
    files = {file: file.name for file in (text_file(target), target, label_file(target))}
    shares = {found.names[label]: round(share, 6) for label, share in found.shares()}
    summary = {
        "photo": in_utf8(os.path.abspath(photo)),
        "model": in_utf8(model),
        "label_map": in_utf8(files[label_file(target)]),
        "shares": shares,
        "names": found.names,
    }
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(prefix=".predict-", dir=target.parent) as folder:
            new = {file: Path(folder) / name for file, name in files.items()}
            _with_legend(image, found).save(new[target], "PNG")
            Image.fromarray(found.labels).save(new[label_file(target)])
            # A file name that is not UTF-8 stands there as JSON's own escapes.
            text = json.dumps(summary, indent=1, ensure_ascii=False)
            new[text_file(target)].write_text(text, "utf-8", errors="backslashreplace")
            for file, finished in new.items():  # the JSON first: it says whose the others are
                finished.replace(file)
    except OSError as error:
        raise UserError(f"cannot write {printable(target)} ({error.strerror}): give another --out") from error
    return [target, label_file(target), text_file(target)]


def table(found: Segmentation) -> Table:
    """The classes found, with their share of the pixels, mean score and, if known, mean probability there."""
    columns = ["class", "pixels %", "mean score"] + ["mean probability"] * (found.probabilities is not None)
    shown = Table(*columns)
    shares = found.shares()
    for label, share in shares[:_SHOWN]:
        cells = [f"{100 * share:.2f}", f"{found.scores[label]:.3f}"]
        if found.probabilities is not None:
            cells.append(f"{found.probabilities[label]:.3f}")
        shown.add_row(Text(printable(found.names[label])), *cells)
    if len(shares) > _SHOWN:
        rest = sum(share for _, share in shares[_SHOWN:])
        shown.add_row(f"... and {len(shares) - _SHOWN} more", f"{100 * rest:.2f}")
    return shown


def without_letters(found: Segmentation) -> list[str]:
    """Names of the legend that no font here can draw: it gives their numbers instead."""
    return [found.names[label] for label, _ in found.shares()[:_SHOWN] if not can_draw(found.names[label])]


def _with_legend(image: UInt8[np.ndarray, "h w 3"], found: Segmentation) -> Image.Image:
    """The overlay, and beside it the colours of the largest classes."""
    shares = found.shares()
    colours = palette(len(shares))
    legend = [(f"{100 * share:5.1f} %  {_name(found, label)}", colour)
              for (label, share), colour in zip(shares[:_SHOWN], colours, strict=False)]  # fmt: skip
    more = len(shares) - len(legend)
    height, width = _shown_size(image.shape[0], image.shape[1])
    page = np.full((max(height, _LINE * (len(legend) + (more > 0)) + 8), width + _LEGEND_WIDTH, 3), 255, np.uint8)
    _paint(page[:height, :width], image, found, colours)
    shown = Image.fromarray(page)
    draw = ImageDraw.Draw(shown)
    for i, (text, colour) in enumerate(legend):
        top = 4 + i * _LINE
        draw.rectangle((width + 8, top + 2, width + 24, top + 18), fill=tuple(colour.tolist()), outline=_BLACK)
        draw_text(draw, (width + 32, top + 2), text, _LEGEND_WIDTH - 40)
    if more > 0:
        draw_text(draw, (width + 32, 6 + len(legend) * _LINE), f"and {more} more", _LEGEND_WIDTH - 40)
    return shown


def _name(found: Segmentation, label: int) -> str:
    return found.names[label] if can_draw(found.names[label]) else f"class {label}"


def _shown_size(height: int, width: int) -> tuple[int, int]:
    factor = min((_OVERLAY_PIXELS / (height * width)) ** 0.5, 1.0)
    return max(int(height * factor), 1), max(int(width * factor), 1)


def _paint(
    page: UInt8[np.ndarray, "y x 3"],
    image: UInt8[np.ndarray, "h w 3"],
    found: Segmentation,
    colours: UInt8[np.ndarray, "k 3"],
) -> None:
    """The overlay into `page`, scaled to its size, some rows at a time."""
    place = np.zeros(len(found.names), np.int32)
    place[[label for label, _ in found.shares()]] = np.arange(len(colours))
    size = page.shape[1], page.shape[0]
    if page.shape != image.shape:
        image = cv2.resize(image, size, interpolation=cv2.INTER_AREA)
    labels = cv2.resize(found.labels, size, interpolation=cv2.INTER_NEAREST)
    for top in range(0, len(page), _ROWS):
        rows = slice(top, top + _ROWS + 1)  # and the next one: where it differs there is an edge
        page[top : top + _ROWS] = overlay(image[rows], place[labels[rows]], colours)[:_ROWS]
