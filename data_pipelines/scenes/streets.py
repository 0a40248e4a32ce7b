"""Made street scenes as a folder of one's own data (docs/own_data.md): what is hard about such data, in small.

All photos are taken from one kind of place: sky above, a row of brick walls and trees, grass and a road below. A photo
shows nearly all base classes at once, and the novel ones are small things in it: clocks on walls, balls on grass and
road, birds in the sky. Masks leave novel things out (255), but for those of `val`; the tags of a photo name all that it
shows.

  images/train, masks/train     `masked` photos
  images/val, masks/val         with masks of all classes, to measure
  tagged/, tagged/tags.csv      `tagged` photos without masks
  classes.txt                   the base classes, then the novel ones

Picture i of a part is a pure function of (part, i), as are the generated scenes.
"""

from __future__ import annotations

import csv
import io
from pathlib import Path

import numpy as np
from jaxtyping import UInt8, UInt16
from PIL import Image

from data_pipelines.scenes.canvas import Canvas
from data_pipelines.scenes.classes import CLASSES as DRAWN
from data_pipelines.scenes.drawing import Dice
from larvseg_jax.disk import write_bytes, write_text
from larvseg_jax.errors import UserError

BASE = ("sky", "brick", "grass", "road", "tree", "house", "car", "sign")
NOVEL = ("clock", "ball", "bird")
CLASSES = (*BASE, *NOVEL)

VALIDATION = 60
_PARTS = ("train", "tagged", "val")
_SIZE = 96  # pixels, height and width
_SEED = 20261
_IGNORED = 255
_HOME = {"clock": ("brick", "house"), "ball": ("grass", "road"), "bird": ("sky",)}
_THING_RADIUS = (16, 26)  # half the width of a novel thing, in pixels of the picture at twice its size
_RADIUS = {"tree": (22, 34), "house": (26, 38), "car": (20, 34), "sign": (10, 16)}
_ROOM = {"tree": ("grass",), "house": ("grass",), "car": ("road",), "sign": ("grass", "road")}


def write_streets(folder: str | Path, masked: int, tagged: int) -> Path:
    """Writes the folder and returns its path.

    Raises:
      UserError: there is something in it already, or it cannot be written.
    """
    folder = Path(folder)
    if folder.is_dir() and any(folder.iterdir()):
        raise UserError(f"{folder} is not empty: give a new folder")
    for part, count in (("train", masked), ("val", VALIDATION)):
        for i in range(count):
            image, mask = picture(part, i)
            if part == "train":
                mask = np.where(mask >= len(BASE), np.uint16(_IGNORED), mask)
            write_bytes(folder / "images" / part / f"{i:04d}.png", _png(image))
            write_bytes(folder / "masks" / part / f"{i:04d}.png", _png(mask.astype(np.uint8)))
    table = io.StringIO()
    lines = csv.writer(table, lineterminator="\n")
    lines.writerow(("file", "tags"))
    for i in range(tagged):
        image, mask = picture("tagged", i)
        write_bytes(folder / "tagged" / f"{i:04d}.png", _png(image))
        lines.writerow((f"{i:04d}.png", ";".join(CLASSES[c] for c in np.unique(mask))))
    if tagged:
        write_text(folder / "tagged" / "tags.csv", table.getvalue())
    write_text(folder / "classes.txt", "".join(f"{name}\n" for name in CLASSES))
    return folder


def picture(part: str, index: int) -> tuple[UInt8[np.ndarray, "h w 3"], UInt16[np.ndarray, "h w"]]:
    """Pixels and the class of every pixel (index into CLASSES)."""
    dice = Dice(_SEED, _PARTS.index(part), index)
    canvas = Canvas(_SIZE)
    _lay_street(dice, canvas)
    for name in ("house", "tree", "tree", "car", "car", "sign"):
        if dice.chance(3, 4):
            _try_to_place(dice, canvas, name, _RADIUS[name], _ROOM[name])
    for name in NOVEL:
        for _ in range(dice.between(0, 2)):
            _try_to_place(dice, canvas, name, _THING_RADIUS, _HOME[name])
    image, drawn = canvas.finish(dice)
    own = np.full(len(DRAWN), _IGNORED, np.uint16)
    own[[DRAWN.index(name) for name in CLASSES]] = np.arange(len(CLASSES), dtype=np.uint16)
    return image, own[drawn]


def _lay_street(dice: Dice, canvas: Canvas) -> None:
    """Sky, walls with gaps, a verge, and the road from side to side."""
    side = canvas.side
    y, x = np.arange(side, dtype=np.int32)[:, None], np.arange(side, dtype=np.int32)[None, :]
    verge = dice.between(side * 9 // 16, side * 5 // 8)
    kerb = verge + dice.between(side // 10, side // 6)
    canvas.lay(dice, "sky", np.ones((side, side), bool))
    left = dice.between(-side // 4, side // 8)
    while left < side:
        width, roof = dice.between(side // 4, side // 2), dice.between(side // 8, side // 3)
        canvas.lay(dice, "brick", (y >= roof) & (x >= left) & (x < left + width))
        left += width + dice.pick((0, 0, side // 6, side // 4))
    uneven = (dice.noise(1, side, 8, 24) - 128) // 40
    canvas.lay(dice, "grass", y >= verge + uneven)
    canvas.lay(dice, "road", y >= kerb + (x - side // 2) * dice.between(-8, 8) // side)


def _try_to_place(dice: Dice, canvas: Canvas, name: str, radius: tuple[int, int], homes: tuple[str, ...]) -> None:
    """Puts a thing somewhere on its homes, if there is room at one of a few places."""
    home = canvas.pixels_of(homes)
    for _ in range(10 if home.any() else 0):
        if canvas.place(dice, name, dice.between(*radius), home):
            return


def _png(pixels: np.ndarray) -> bytes:
    buffer = io.BytesIO()
    Image.fromarray(pixels).save(buffer, "png")
    return buffer.getvalue()
