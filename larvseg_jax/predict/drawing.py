"""What was found in a photo as pictures: the photo under its classes, named, with a legend; and the classes alone."""

from __future__ import annotations

from collections.abc import Collection

import cv2
import numpy as np
from jaxtyping import Int32, Int64, UInt8
from PIL import Image, ImageDraw

from larvseg_jax.predict.segmentation import Segmentation
from larvseg_jax.report.colours import class_colours, overlay
from larvseg_jax.report.lettering import SIZE, can_draw, draw_text, text_width
from larvseg_jax.vocabulary import IGNORE_LABEL

SHOWN = 20
"""Classes in the legend and in the table."""

_LEGEND_WIDTH = 300
_LINE = 22
_SHORT_SIDE = 720  # of a picture that many times as large the letters are as many times as large
_PIXELS = 32_000_000  # a larger photo is scaled down to so many
_ROWS = 256  # that are coloured at a time
_NAMED_SIDE = 512  # places of names are looked for at this size
_NAMED_SHARE = 0.01  # of the picture: smaller segments are not named
_WHITE, _BLACK, _GREY = (255, 255, 255), (0, 0, 0), np.array([128, 128, 128], np.uint8)


def overlay_page(
    image: UInt8[np.ndarray, "h w 3"], found: Segmentation, show: Collection[str] | None = None
) -> Image.Image:
    """The photo under its classes, large segments named, and beside it the colours of the largest classes.

    Args:
      image: RGB.
      found: of this photo.
      show: names of the classes that are coloured, the rest is grey; None: all.
    """
    legend = [(label, share) for label, share in found.shares() if show is None or found.names[label] in show]
    colours = class_colours([found.names[label] for label, _ in legend])
    height, width = _shown_size(image.shape[0], image.shape[1])
    times = max(round(min(height, width) / _SHORT_SIDE), 1)
    line, right = _LINE * times, _LEGEND_WIDTH * times
    listed = legend[:SHOWN]
    more = len(legend) - len(listed)
    page = np.full((max(height, line * (len(listed) + (more > 0)) + 8 * times), width + right, 3), 255, np.uint8)
    labels = _shown_labels(found, show, (height, width))
    _paint(page[:height, :width], image, labels, [label for label, _ in legend], colours)
    shown = Image.fromarray(page)
    draw = ImageDraw.Draw(shown)
    _name_segments(draw, found, labels, times)
    for i, ((label, share), colour) in enumerate(zip(listed, colours, strict=False)):
        top = 4 * times + i * line
        place = width + 8 * times, top + 2 * times, width + 24 * times, top + 18 * times
        draw.rectangle(place, fill=tuple(colour.tolist()), outline=_BLACK)
        text = f"{100 * share:5.1f} %  {name_of(found, label)}"
        draw_text(draw, (width + 32 * times, top + 2 * times), text, right - 40 * times, SIZE * times)
    if more > 0:
        last = width + 32 * times, 6 * times + len(listed) * line
        draw_text(draw, last, f"and {more} more", right - 40 * times, SIZE * times)
    return shown


def coloured(found: Segmentation, show: Collection[str] | None = None) -> Image.Image:
    """The classes alone in their colours, those not in `show` grey; scaled down as the overlay is."""
    height, width = _shown_size(*found.size)
    labels = _shown_labels(found, show, (height, width))
    there = np.unique(labels)
    colours = class_colours([found.names[label] for label in there if label != IGNORE_LABEL])
    if there[0] == IGNORE_LABEL:
        colours = np.concatenate([_GREY[None], colours])
    page = np.empty((height, width, 3), np.uint8)
    for top in range(0, height, _ROWS):
        page[top : top + _ROWS] = colours[np.searchsorted(there, labels[top : top + _ROWS])]
    return Image.fromarray(page)


def name_of(found: Segmentation, label: int) -> str:
    """The name of a class, or its number where no font here has its letters."""
    return found.names[label] if can_draw(found.names[label]) else f"class {label}"


def _shown_labels(found: Segmentation, show: Collection[str] | None, size: tuple[int, int]) -> Int32[np.ndarray, "y x"]:
    """The label map at some size, IGNORE_LABEL where a class is not to be shown."""
    labels = cv2.resize(found.labels, size[::-1], interpolation=cv2.INTER_NEAREST)
    if show is None:
        return labels.astype(np.int32)
    table = np.array([i if name in show else IGNORE_LABEL for i, name in enumerate(found.names)], np.int32)
    return table[labels]


def _shown_size(height: int, width: int) -> tuple[int, int]:
    factor = min((_PIXELS / (height * width)) ** 0.5, 1.0)
    return max(int(height * factor), 1), max(int(width * factor), 1)


def _paint(
    page: UInt8[np.ndarray, "y x 3"],
    image: UInt8[np.ndarray, "h w 3"],
    labels: Int32[np.ndarray, "y x"],
    listed: list[int],
    colours: UInt8[np.ndarray, "k 3"],
) -> None:
    """The overlay into `page`, to whose size the photo is scaled, some rows at a time."""
    place = np.full(max(listed, default=0) + 2, IGNORE_LABEL, np.int32)  # the last place is that of IGNORE_LABEL
    place[listed] = np.arange(len(listed), dtype=np.int32)
    size = page.shape[0], page.shape[1]
    if page.shape != image.shape:
        image = cv2.resize(image, size[::-1], interpolation=cv2.INTER_AREA)
    table = colours if len(colours) else _GREY[None]
    for top in range(0, size[0], _ROWS):
        rows = slice(top, top + _ROWS + 1)  # and the next one: where it differs there is an edge
        beneath, hidden = image[rows], labels[rows] == IGNORE_LABEL
        if hidden.any():
            grey = cv2.cvtColor(cv2.cvtColor(beneath, cv2.COLOR_RGB2GRAY), cv2.COLOR_GRAY2RGB)
            beneath = np.where(hidden[..., None], grey, beneath)
        page[top : top + _ROWS] = overlay(beneath, place[labels[rows]], table)[:_ROWS]


def _name_segments(
    draw: ImageDraw.ImageDraw,
    found: Segmentation,
    labels: Int32[np.ndarray, "y x"],
    times: int,
) -> None:
    """Writes the names of classes into their large segments, where they are widest and fit; never over each other."""
    size = labels.shape[0], labels.shape[1]
    factor = min(_NAMED_SIDE / max(size), 1.0)
    shape = max(round(size[1] * factor), 1), max(round(size[0] * factor), 1)
    small = cv2.resize(labels, shape, interpolation=cv2.INTER_NEAREST)
    taken: list[tuple[int, int, int, int]] = []
    for label in np.unique(small[small != IGNORE_LABEL]).tolist():
        number, regions, figures, _ = cv2.connectedComponentsWithStats(
            (small == label).astype(np.uint8), connectivity=4
        )
        for i in range(1, number):
            if figures[i, cv2.CC_STAT_AREA] < _NAMED_SHARE * small.size:
                continue
            x, y, room = _widest_place(regions == i, figures[i])
            text = name_of(found, label)
            width, height = text_width(text, SIZE * times) + 6 * times, (SIZE + 6) * times
            if 2 * room / factor < height or figures[i, cv2.CC_STAT_WIDTH] / factor < width:
                continue
            left = min(max(round((x + 0.5) / factor) - width // 2, 0), size[1] - width)
            top = min(max(round((y + 0.5) / factor) - height // 2, 0), size[0] - height)
            box = left, top, left + width, top + height
            if left < 0 or top < 0 or any(_overlap(box, other) for other in taken):
                continue
            taken.append(box)
            draw.rectangle((box[0], box[1], box[2] - 1, box[3] - 1), fill=_WHITE)
            draw_text(draw, (left + 3 * times, top + times), text, width, SIZE * times)


def _widest_place(
    region: np.ndarray, figures: Int32[np.ndarray, " 5"] | Int64[np.ndarray, " 5"]
) -> tuple[int, int, float]:
    """The pixel (x, y) of a region farthest from all others and the border, and how far it is."""
    left, top, width, height, _ = figures.tolist()
    inside = np.pad(region[top : top + height, left : left + width].astype(np.uint8), 1)
    far = cv2.distanceTransform(inside, cv2.DIST_L2, 3)
    y, x = np.unravel_index(far.argmax(), far.shape)
    return left + int(x) - 1, top + int(y) - 1, float(far[y, x])


def _overlap(a: tuple[int, int, int, int], b: tuple[int, int, int, int]) -> bool:
    return a[0] < b[2] and b[0] < a[2] and a[1] < b[3] and b[1] < a[3]
