"""A picture while it is drawn: grounds are laid, objects placed, then light and noise added."""

import numpy as np
from jaxtyping import Int32, UInt8, UInt16

from data_pipelines.scenes.classes import CLASSES
from data_pipelines.scenes.drawing import Colours, Dice, Layers, Mask, Noise, frame, pattern, stuff
from data_pipelines.scenes.objects import COLOURS, THINGS, Thing

MIN_PIXELS = 24
"""Least number of pixels of a class that is in the scene."""


class Canvas:
    """Colours and classes of a picture, drawn at twice its size.

    Args:
      size: height and width of the finished picture.
    """

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
        among = np.array([c in names for c in CLASSES])
        return among[self.classes]

    def place(self, dice: Dice, name: str, radius: int, home: Mask, *, alone: bool = False) -> bool:
        """Puts an object somewhere on the pixels of `home`; False if there is no room.

        `alone`: the object may be cut by the picture's edge and may hide whatever was there.
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
        classes, outside = self.classes[::2, ::2], ~outline[::2, ::2]  # as in the finished picture
        before, after = (np.bincount(c, minlength=len(CLASSES)) for c in (classes.ravel(), classes[outside]))
        enough = np.where(np.array([c in THINGS for c in CLASSES]), before * 2 // 3, before // 3)
        still_there = (before == 0) | (after >= np.maximum(MIN_PIXELS, enough))
        return at_home and bool(still_there.all()) and int((~outside).sum()) >= 2 * MIN_PIXELS

    def _paint(self, dice: Dice, thing: Thing, layers: Layers, outline: Mask, u: Noise, v: Noise) -> None:
        """Colours the layers of an object: two colours of its class, a pattern, light from the top left."""
        paint = {name: np.array(rgb, np.int32) for name, rgb in COLOURS.items()}
        for key, name in zip(("main", "second"), dice.pick(thing.colours).split(), strict=True):
            paint[key] = paint[name] + np.array([dice.between(-24, 24) for _ in range(3)], np.int32)
        second = pattern(dice.pick(thing.patterns), dice, u, v)
        for where, key in layers:
            if key == "body":
                self.colours[where & second] = paint["second"]
                self.colours[where & ~second] = paint["main"]
            else:
                self.colours[where] = paint[key]
        self.colours[outline] -= (v // 4 + u // 8)[outline][:, None]

    def finish(self, dice: Dice) -> tuple[UInt8[np.ndarray, "h w 3"], UInt16[np.ndarray, "h w"]]:
        """Pixels and classes of the finished picture: reduced to its own size, with lighting and noise."""
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
