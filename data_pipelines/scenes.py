"""Generated scenes: a small data set with masks, tags and object pictures, drawn by integer arithmetic.

It contains the trap that the method is about. Every novel class is found on one base class only (HABITAT):
fish are in water, sheep on grass, windows in brick walls. A classifier that learns novel classes from
image labels by averaging its scores over the picture has no reason to tell the fish from the water: all
pictures tagged "fish" show water, and water is most of the picture. It marks the water. Only what
differs between pictures of *different* grounds and objects, held side by side, isolates the fish.

Four parts, all drawn from the same kinds of scenes:
  train_masks    masks of the base classes. Novel objects appear as often as elsewhere; their pixels are
                 IGNORED, so water with a fish in it is not taught to be plain water, nor to be fish.
  train_tags     the set of classes in the picture, base and novel.
  train_objects  one large object and its name, as in ImageNet: novel classes and a few base ones,
                 in one of AWAY pictures away from their ground.
  val            masks of all classes.

Picture i of a part is a pure function of (part, i), and no float is involved: pixels are the same on every
machine. Scenes are drawn at twice their size and averaged 2x2.
"""

import dataclasses

import numpy as np
from jaxtyping import Bool, Int32, UInt8, UInt16

from data_pipelines.scenes_drawing import Colours, Dice, Layers, Mask, Noise, ellipse, frame, pattern, stuff
from data_pipelines.scenes_objects import COLOURS, THINGS, Thing

HABITAT = {
    # base stuff: its own ground
    "sky": ("sky",), "grass": ("grass",), "water": ("water",), "sand": ("sand",),
    "road": ("road",), "brick": ("brick",), "snow": ("snow",), "wood": ("wood",),
    # base objects: at home on several grounds
    "tree": ("grass", "snow", "sand"),
    "ball": ("grass", "sand", "wood", "road"),
    "boat": ("water", "water", "sand"),
    "cow": ("grass", "sand", "snow"),
    "car": ("road", "grass", "snow"),
    "house": ("grass", "snow", "sand", "road"),
    "flower": ("grass", "wood", "brick", "road"),
    "sign": ("road", "brick", "snow", "sand"),
    # novel classes: on one ground only
    "fish": ("water",),
    "bird": ("sky",),
    "kite": ("sky",),
    "sheep": ("grass",),
    "cactus": ("sand",),
    "starfish": ("sand",),
    "bus": ("road",),
    "window": ("brick",),
    "clock": ("wood",),
    "ice": ("snow",),
}  # fmt: skip
"""On which grounds each class is found."""

CLASSES = tuple(HABITAT)
BASE = CLASSES[:16]
NOVEL = CLASSES[16:]
OBJECTS = (*NOVEL, "tree", "ball", "boat", "cow", "car", "sign")
"""Classes of train_objects, picture i showing OBJECTS[i % 16]."""

SIZES = {"train_masks": 800, "train_tags": 1200, "train_objects": 640, "val": 150}
MASKED = ("train_masks", "val")
"""Parts that publish masks."""

SCENE_SIZE = 64
OBJECT_SIZE = 48  # pixels, height and width
IGNORED = 65535
MIN_PIXELS = 24  # a class shows at least so many pixels, or is not in the scene
AWAY = 12  # one object picture in so many is away from home

BACKDROPS = ("sky", "sky", "sky", "sky", "brick", "wood")
GROUNDS = ("grass", "water", "sand", "road", "snow", "wood")
"""Grounds that may lie at the bottom of a picture."""


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


def render(part: str, index: int) -> Picture:
    """Picture `index` of a part, with as much annotation as the part publishes."""
    image, mask = truth(part, index)
    tags = tuple(int(c) for c in np.unique(mask))
    if part == "train_masks":
        novel = mask >= len(BASE)
        mask, tags = np.where(novel, np.uint16(IGNORED), mask), tuple(c for c in tags if c < len(BASE))
    if part == "train_objects":
        tags = (CLASSES.index(OBJECTS[index % len(OBJECTS)]),)
    return Picture(f"{part}_{index:05d}", image, mask if part in MASKED else None, tags)


def truth(part: str, index: int) -> tuple[UInt8[np.ndarray, "h w 3"], UInt16[np.ndarray, "h w"]]:
    """Pixels and the class of every pixel, published or not."""
    dice = Dice(20260, list(SIZES).index(part), index)
    if part == "train_objects":
        canvas = _object_picture(dice, OBJECTS[index % len(OBJECTS)])
    else:
        canvas = _scene(dice)
    return canvas.finished(dice)


class _Canvas:
    """A picture in the making, twice enlarged: colours and classes."""

    def __init__(self, size: int):
        self.side = 2 * size
        self.colours: Colours = np.zeros((self.side, self.side, 3), np.int32)
        self.classes: Int32[np.ndarray, "h w"] = np.zeros((self.side, self.side), np.int32)

    def lay(self, dice: Dice, name: str, where: Mask) -> None:
        """Covers pixels with a ground class."""
        np.copyto(self.colours, stuff(name, dice, self.side, self.side), where=where[:, :, None])
        self.classes[where] = CLASSES.index(name)

    def pixels_of(self, names: tuple[str, ...]) -> Mask:
        """Where one of the classes shows."""
        wanted = np.array([c in names for c in CLASSES])
        return wanted[self.classes]

    def place(self, dice: Dice, name: str, radius: int, home: Mask, *, alone: bool = False) -> bool:
        """Puts an object somewhere into its home; False if there is no room.

        `alone`: it may be cut by the picture's edge and hide all there is.
        """
        thing = THINGS[name]
        y, x = divmod(int(dice.pick(np.flatnonzero(home))), self.side)
        height = radius * dice.between(*thing.height) // 100
        y -= height if thing.stands else 0
        turn, mirror = dice.between(-thing.turn, thing.turn), dice.chance(1, 2)
        if not alone and not (_within(y, height, self.side) and _within(x, radius, self.side)):
            return False
        u, v = frame(self.side, self.side, (y, x), (height, radius), turn)
        u = -u if mirror else u
        layers = thing.draw(dice, u, v)
        outline = np.logical_or.reduce([where for where, _ in layers])
        if not alone and not self._fits(outline, home, thing.stands):
            return False
        self._paint(dice, thing, layers, outline, u, v)
        self.classes[outline] = CLASSES.index(name)
        return True

    def _fits(self, outline: Mask, home: Mask, stands: bool) -> bool:
        """Whether enough of an object would be on its ground, and no class hidden by it."""
        at_home = int((outline & home).sum()) * 100 > int(outline.sum()) * (12 if stands else 80)
        now, after = self.classes[::2, ::2], self.classes[::2, ::2][~outline[::2, ::2]]
        before, left = (np.bincount(c.ravel(), minlength=len(CLASSES)) for c in (now, after))
        enough = np.where(np.array([c in THINGS for c in CLASSES]), before * 2 // 3, before // 3)
        shown = (before == 0) | (left >= np.maximum(MIN_PIXELS, enough))
        return at_home and bool(shown.all()) and now.size - after.size >= 2 * MIN_PIXELS

    def _paint(self, dice: Dice, thing: Thing, layers: Layers, outline: Mask, u: Noise, v: Noise) -> None:
        """Colours the layers of an object: two colours of its class, a pattern, light from the top left."""
        paint = {name: np.array(rgb, np.int32) for name, rgb in COLOURS.items()}
        for key, name in zip(("main", "second"), dice.pick(thing.colours).split(), strict=True):
            paint[key] = paint[name] + np.array([dice.between(-24, 24) for _ in range(3)], np.int32)
        patterned = pattern(dice.pick(thing.patterns), dice, u, v)
        for where, key in layers:
            if key == "body":
                self.colours[where & patterned] = paint["second"]
                self.colours[where & ~patterned] = paint["main"]
            else:
                self.colours[where] = paint[key]
        self.colours[outline] -= (v // 4 + u // 8)[outline][:, None]

    def finished(self, dice: Dice) -> tuple[UInt8[np.ndarray, "h w 3"], UInt16[np.ndarray, "h w"]]:
        """Lighting, noise and the step down to the picture's own size."""
        c, size = self.colours, self.side // 2
        small = (c[::2, ::2] + c[1::2, ::2] + c[::2, 1::2] + c[1::2, 1::2] + 2) // 4
        overall = dice.between(225, 275)
        gain = np.array([overall + dice.between(-10, 10) for _ in range(3)], np.int32)
        x = np.arange(size, dtype=np.int32)[None, :, None] - size // 2
        lit = small * (gain + x * dice.between(-32, 32) // size) // 256 + dice.between(-8, 8)
        words = dice.words(size * size * 3 // 16)
        grain = np.stack([words >> np.uint64(4 * k) & np.uint64(15) for k in range(16)]).astype(np.int32) - 8
        image = np.clip(lit + grain.reshape(size, size, 3), 0, 255).astype(np.uint8)
        return image, self.classes[::2, ::2].astype(np.uint16)


def _within(centre: int, radius: int, side: int) -> bool:
    """Whether at least five sixths of a width lie between the picture's edges."""
    return 2 * radius <= 3 * centre <= 3 * side - 2 * radius


def _scene(dice: Dice) -> _Canvas:
    """Two or three grounds and one to three objects, the first of them the scene's theme."""
    canvas = _Canvas(SCENE_SIZE)
    theme = dice.pick(NOVEL if dice.chance(3, 5) else BASE[8:])
    _grounds(dice, canvas, dice.pick(HABITAT[theme]), icy=theme == "ice")
    wanted = [theme] if theme in THINGS else []
    pixels = np.bincount(canvas.classes.ravel(), minlength=len(CLASSES))
    large = {g for g in BASE[:8] if pixels[CLASSES.index(g)] > canvas.side**2 // 8}
    at_home = [n for n in THINGS if large.intersection(HABITAT[n])]
    wanted += [dice.pick(at_home) for _ in range(dice.between(0, 2))]
    for name in wanted:
        home = canvas.pixels_of(HABITAT[name])
        for _ in range(8 if home.any() else 0):
            if canvas.place(dice, name, dice.between(24, 38), home):
                break
    return canvas


def _object_picture(dice: Dice, name: str) -> _Canvas:
    """One object that fills much of the picture."""
    canvas = _Canvas(OBJECT_SIZE)
    away = name != "ice" and dice.chance(1, AWAY)
    _grounds(dice, canvas, dice.pick(BASE[:8] if away else HABITAT[name]), icy=name == "ice")
    if name in THINGS:
        middle = np.zeros((canvas.side, canvas.side), bool)
        row = canvas.side * 7 // 8 if THINGS[name].stands else canvas.side // 2
        middle[row - 6 : row + 7, canvas.side // 2 - 8 : canvas.side // 2 + 9] = True
        canvas.place(dice, name, dice.between(24, 40), middle, alone=True)
    return canvas


def _grounds(dice: Dice, canvas: _Canvas, home: str, icy: bool) -> None:
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
