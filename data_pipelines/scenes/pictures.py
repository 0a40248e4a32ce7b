"""Picture i of each part: which grounds and objects it shows, and what the part publishes of it."""

import dataclasses
from collections.abc import Mapping
from typing import TypeAlias

import numpy as np
from jaxtyping import Bool, UInt8, UInt16

from data_pipelines.scenes.canvas import MIN_PIXELS, Canvas
from data_pipelines.scenes.classes import BASE, BASE_GROUNDS, BASE_OBJECTS, CLASSES, HABITATS, NOVEL, Grounds
from data_pipelines.scenes.drawing import Dice, ellipse, frame
from data_pipelines.scenes.objects import THINGS

OBJECTS = (*NOVEL, "tree", "ball", "boat", "cow", "car", "sign")
"""Classes of train_objects: picture i shows OBJECTS[i % len(OBJECTS)]."""

SIZES = {"train_masks": 800, "train_tags": 1200, "train_objects": 640, "val": 150}
"""Number of pictures of each part."""
MASKED = ("train_masks", "val")
"""Parts that publish masks."""

VERSION = "2.0.0"
"""Changes whenever a pixel changes: a prepared data set is never drawn again. 1.0.0 had one
ground per novel class and smaller objects."""

IGNORED = 65535
"""Value of pixels whose class a part hides."""

SCENE_SIZE = 64  # pixels, height and width
OBJECT_SIZE = 48  # the same of train_objects
# Half the width of an object, in pixels of the picture at twice its size. Attention is compared within a picture:
# it teaches most where an object fills a quarter or so of it (docs/results.md).
SCENE_RADIUS, OBJECT_RADIUS = (30, 44), (30, 42)
AWAY = 12  # one in AWAY object pictures is away from its ground
SEED = 20260

BACKDROPS = ("sky", "sky", "sky", "sky", "brick", "wood")
"""What may lie behind the ground; the sky does so most often."""

GROUNDS = ("grass", "water", "sand", "road", "snow", "wood")
"""Grounds that may lie at the bottom of a picture."""


Habitat: TypeAlias = Mapping[str, tuple[str, ...]]


@dataclasses.dataclass(frozen=True)
class Picture:
    """One generated picture.

    Attributes:
      id: part and index.
      image: RGB pixels.
      mask: class of each pixel (index into CLASSES) or IGNORED; None where the part has no masks.
      tags: sorted classes that the part declares.
    """

    id: str
    image: UInt8[np.ndarray, "h w 3"]
    mask: UInt16[np.ndarray, "h w"] | None
    tags: tuple[int, ...]


def config_of(part: str, grounds: Grounds) -> str:
    """The name under which a part is prepared (builder.py)."""
    return part if grounds == "several" else f"{part}_one_ground"


def render(part: str, index: int, grounds: Grounds = "several") -> Picture:
    """Picture `index` of a part, with as much annotation as the part publishes."""
    image, mask = truth(part, index, grounds)
    tags = tuple(int(c) for c in np.unique(mask))
    if part == "train_masks":
        novel = mask >= len(BASE)
        mask, tags = np.where(novel, np.uint16(IGNORED), mask), tuple(c for c in tags if c < len(BASE))
    if part == "train_objects":
        tags = (CLASSES.index(OBJECTS[index % len(OBJECTS)]),)
    return Picture(f"{part}_{index:05d}", image, mask if part in MASKED else None, tags)


def truth(
    part: str, index: int, grounds: Grounds = "several"
) -> tuple[UInt8[np.ndarray, "h w 3"], UInt16[np.ndarray, "h w"]]:
    """Pixels and the class of every pixel, published or not."""
    dice = Dice(SEED, list(SIZES).index(part), index)
    if part == "train_objects":
        canvas = _object_picture(dice, OBJECTS[index % len(OBJECTS)], HABITATS[grounds])
    else:
        canvas = _scene(dice, HABITATS[grounds])
    return canvas.finish(dice)


def captioned_scene(
    split: int, index: int, grounds: Grounds
) -> tuple[UInt8[np.ndarray, "h w 3"], UInt16[np.ndarray, "h w"]]:
    """Pixels and the class of every pixel of a scene that is none of any part: of captions.py's split by number."""
    dice = Dice(SEED, len(SIZES) + split, index)
    return _scene(dice, HABITATS[grounds]).finish(dice)


def _scene(dice: Dice, habitat: Habitat) -> Canvas:
    """Two or three grounds and one to three objects, the first of them the scene's theme."""
    canvas = Canvas(SCENE_SIZE)
    theme = dice.pick(NOVEL if dice.chance(3, 5) else BASE_OBJECTS)
    _grounds(dice, canvas, dice.pick(habitat[theme]), icy=theme == "ice")
    names = [theme] if theme in THINGS else []
    pixels = np.bincount(canvas.classes.ravel(), minlength=len(CLASSES))
    large = {g for g in BASE_GROUNDS if pixels[CLASSES.index(g)] > canvas.side**2 // 8}
    at_home = [n for n in THINGS if large.intersection(habitat[n])]
    names += [dice.pick(at_home) for _ in range(dice.between(0, 2))]
    for name in names:
        home = canvas.pixels_of(habitat[name])
        for _ in range(8 if home.any() else 0):
            if canvas.place(dice, name, dice.between(*SCENE_RADIUS), home):
                break
    return canvas


def _object_picture(dice: Dice, name: str, habitat: Habitat) -> Canvas:
    """One object that fills much of the picture."""
    canvas = Canvas(OBJECT_SIZE)
    away = name != "ice" and dice.chance(1, AWAY)
    _grounds(dice, canvas, dice.pick(BASE_GROUNDS if away else habitat[name]), icy=name == "ice")
    if name in THINGS:
        middle = np.zeros((canvas.side, canvas.side), bool)
        row = canvas.side * 7 // 8 if THINGS[name].stands else canvas.side // 2
        middle[row - 6 : row + 7, canvas.side // 2 - 8 : canvas.side // 2 + 9] = True
        canvas.place(dice, name, dice.between(*OBJECT_RADIUS), middle, alone=True)
    return canvas


def _grounds(dice: Dice, canvas: Canvas, home: str, icy: bool) -> None:
    """Covers the canvas: what is behind, the ground below an uneven horizon, perhaps a patch on it."""
    side = canvas.side
    if home in ("sky", "brick") or (home == "wood" and dice.chance(2, 3)):
        behind, ground = home, dice.pick([g for g in GROUNDS if g != home])
    else:
        behind, ground = dice.pick([b for b in (*BACKDROPS, dice.pick(GROUNDS)) if b != home]), home
    roomy = behind == home
    horizon = dice.between(side * 9 // 16, side * 3 // 4) if roomy else dice.between(side // 4, side // 2)
    y, x = np.arange(side, dtype=np.int32)[:, None], np.arange(side, dtype=np.int32)[None, :]
    uneven = 0 if {behind, ground} & {"brick", "wood"} else dice.between(0, 24)
    tilt = dice.between(-12, 12) if uneven else 0
    edge = horizon + (dice.noise(1, side, 8, 24) - 128) * uneven // 256 + x * tilt // side
    below = y > edge
    canvas.lay(dice, behind, np.ones((side, side), bool))
    canvas.lay(dice, ground, below)
    if icy or dice.chance(2, 5):
        top = "ice" if icy or (ground == "snow" and dice.chance(1, 3)) else dice.pick(GROUNDS[:5])
        patch = _patch(dice, side, horizon, large=icy) & below
        if top != ground and patch[::2, ::2].sum() > 4 * MIN_PIXELS:
            canvas.lay(dice, top, patch)


def _patch(dice: Dice, side: int, horizon: int, large: bool) -> Bool[np.ndarray, "side side"]:
    """A puddle-like region below the horizon."""
    centre = dice.between((horizon + side) // 2, side - 8), dice.between(side // 6, side * 5 // 6)
    low = side // 4 if large else side // 6
    u, v = frame(side, side, centre, (dice.between(low, side // 3), dice.between(low, side // 2)), 0)
    bumps = (dice.noise(side, side, 14, 14) - 128) // 5
    return ellipse(u + bumps, v + bumps, 0, 0, 60, 60)
