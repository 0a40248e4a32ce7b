"""Integer drawing for the generated scenes: random numbers, noise, ground textures, silhouettes.

Everything here is integer arithmetic on NumPy arrays, so a picture is the same, bit for bit, on every
machine and with every NumPy version. Objects are drawn in their own frame, (u, v) from -64 to 64 with
v pointing down; lengths of textures are in pixels of the picture at twice its size.
"""

from typing import TypeAlias

import numpy as np
from jaxtyping import Bool, Int32, UInt64

WORD = 2**64 - 1
QUARTER_WAVE = (0, 50, 98, 142, 181, 213, 237, 251, 256)  # 256 * sin(k * 11.25 degrees)

Noise: TypeAlias = Int32[np.ndarray, "h w"]
Colours: TypeAlias = Int32[np.ndarray, "h w 3"]
Mask: TypeAlias = Bool[np.ndarray, "h w"]
Layers: TypeAlias = list[tuple[Mask, str]]
"""What an object is painted with, first layer first: pixels, and their colour as `objects.Thing.draw` names it."""


class Dice:
    """A stream of random integers that depends on its key alone (splitmix64)."""

    def __init__(self, *key: int):
        self._state = 0
        for part in key:
            self._state = int(_mixed(np.array([(self._state ^ part) + 0x9E3779B97F4A7C15 & WORD], np.uint64))[0])

    def words(self, count: int) -> UInt64[np.ndarray, " count"]:
        """The next `count` 64-bit words."""
        steps = np.arange(1, count + 1, dtype=np.uint64) * np.uint64(0x9E3779B97F4A7C15)
        steps += np.array([self._state], np.uint64)
        self._state = int(steps[-1])
        return _mixed(steps)

    def below(self, limit: int) -> int:
        """An integer from 0 to limit - 1."""
        return int(self.words(1)[0]) % limit

    def between(self, low: int, high: int) -> int:
        """An integer from low to high, both included."""
        return low + self.below(high - low + 1)

    def chance(self, hits: int, of: int) -> bool:
        """True in `hits` of `of` cases."""
        return self.below(of) < hits

    def pick(self, choices):
        """One element of a sequence."""
        return choices[self.below(len(choices))]

    def noise(self, h: int, w: int, cell_y: int, cell_x: int) -> Noise:
        """Value noise, 0 to 255: random values every (cell_y, cell_x) pixels, bilinear in between."""
        rows, columns = h // cell_y + 2, w // cell_x + 2
        grid = (self.words(rows * columns).reshape(rows, columns) >> np.uint64(56)).astype(np.int32)
        y, x = np.arange(h, dtype=np.int32), np.arange(w, dtype=np.int32)
        along, up = (x % cell_x)[None, :], (y % cell_y)[:, None]
        wide = grid[:, x // cell_x] * (cell_x - along) + grid[:, x // cell_x + 1] * along
        tall = wide[y // cell_y] * (cell_y - up) + wide[y // cell_y + 1] * up
        return tall // (cell_x * cell_y)


def _mixed(z: UInt64[np.ndarray, " n"]) -> UInt64[np.ndarray, " n"]:
    z = (z ^ (z >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    z = (z ^ (z >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return z ^ (z >> np.uint64(31))


# Ground textures: colour range (overlapping between classes) plus a pattern of light.

STUFF_COLOURS = {
    "sky": ((110, 165, 225), (150, 178, 205), (222, 165, 140), (80, 110, 175)),
    "grass": ((78, 138, 50), (120, 150, 60), (155, 145, 75), (60, 112, 70)),
    "water": ((50, 105, 170), (60, 140, 145), (95, 125, 130), (45, 80, 120)),
    "sand": ((222, 195, 140), (200, 162, 110), (190, 178, 160)),
    "road": ((105, 105, 110), (78, 78, 84), (135, 122, 108)),
    "brick": ((172, 84, 62), (155, 132, 110), (130, 68, 60), (120, 118, 122)),
    "snow": ((236, 240, 245), (212, 224, 240), (238, 224, 222)),
    "wood": ((152, 102, 62), (122, 82, 58), (172, 136, 96), (132, 118, 108)),
    "ice": ((186, 212, 228), (150, 190, 205), (208, 212, 222)),
}


def stuff(name: str, dice: Dice, h: int, w: int) -> Colours:
    """A whole picture, (h, w) pixels, of one ground class. Values may leave 0..255."""
    colour = np.array(dice.pick(STUFF_COLOURS[name]), np.int32)
    colour = colour + np.array([dice.between(-14, 14) for _ in range(3)], np.int32)
    light = _PATTERNS[name](dice, h, w)
    return colour[None, None, :] + light[:, :, None]


def _sky(dice: Dice, h: int, w: int) -> Noise:
    clouds = (dice.noise(h, w, 22, 40) * 2 + dice.noise(h, w, 8, 14)) // 3
    height = np.arange(h, dtype=np.int32)[:, None] * 50 // h - 25
    return height + np.maximum(clouds - dice.between(120, 170), 0)


def _grass(dice: Dice, h: int, w: int) -> Noise:
    return (dice.noise(h, w, 7, 2) - 128) // 2 + (dice.noise(h, w, 30, 30) - 128) // 5


def _water(dice: Dice, h: int, w: int) -> Noise:
    waves = dice.noise(h, w, 3, 18)
    return (waves - 128) // 4 + _lit(waves > 178, 45) + (dice.noise(h, w, 30, 60) - 128) // 5


def _sand(dice: Dice, h: int, w: int) -> Noise:
    y = np.arange(h, dtype=np.int32)[:, None]
    ripples = (y * 3 + dice.noise(h, w, 30, 40)) % 48
    return abs(ripples - 24) - 12 + (dice.noise(h, w, 2, 2) - 128) // 5


def _road(dice: Dice, h: int, w: int) -> Noise:
    y, x = np.arange(h, dtype=np.int32)[:, None], np.arange(w, dtype=np.int32)[None, :]
    lane = dice.between(h // 2, h - 8)
    dashes = (abs(y - lane) < 3) & ((x + lane) % 44 < 26)
    return (dice.noise(h, w, 2, 2) - 128) // 4 + _lit(dashes, 95)


def _brick(dice: Dice, h: int, w: int) -> Noise:
    high, long = dice.between(10, 13), dice.between(20, 28)
    y, x = np.arange(h, dtype=np.int32)[:, None], np.arange(w, dtype=np.int32)[None, :]
    row = y // high
    shifted = x + row % 2 * (long // 2)
    tone = dice.words(64 * 64).reshape(64, 64)[row, shifted // long] >> np.uint64(59)
    mortar = (y % high < 2) | (shifted % long < 2)
    return np.where(mortar, np.int32(55), tone.astype(np.int32) * 2 - 32) + (dice.noise(h, w, 3, 3) - 128) // 10


def _snow(dice: Dice, h: int, w: int) -> Noise:
    drifts = (dice.noise(h, w, 16, 44) - 150) // 3
    return np.minimum(drifts, 12) + _lit(dice.noise(h, w, 2, 2) > 225, 30)


def _wood(dice: Dice, h: int, w: int) -> Noise:
    upright, wide = dice.chance(1, 2), dice.between(14, 20)
    h, w = (w, h) if upright else (h, w)
    y = np.arange(h, dtype=np.int32)[:, None]
    tone = (dice.words(h // wide + 1)[y // wide] >> np.uint64(59)).astype(np.int32)
    grain = (dice.noise(h, w, 2, 36) - 128) // 4
    light = np.where(y % wide < 2, np.int32(-60), tone - 16 + grain)
    return light.T if upright else light


def _ice(dice: Dice, h: int, w: int) -> Noise:
    y, x = np.arange(h, dtype=np.int32)[:, None], np.arange(w, dtype=np.int32)[None, :]
    cracks = (abs(dice.noise(h, w, 18, 18) - 128) < 7) | (abs(dice.noise(h, w, 26, 26) - 128) < 5)
    gloss = (x + y * 2 + dice.below(64)) % 64 < 12
    return _lit(gloss, 22) - _lit(cracks, 62)


def _lit(where: Mask, light: int) -> Noise:
    return where.astype(np.int32) * np.int32(light)


_PATTERNS = {
    "sky": _sky, "grass": _grass, "water": _water, "sand": _sand, "road": _road,
    "brick": _brick, "snow": _snow, "wood": _wood, "ice": _ice,
}  # fmt: skip


# Shapes in the object's frame.


def ellipse(u: Noise, v: Noise, cu: int, cv: int, ru: int, rv: int) -> Mask:
    """Pixels inside an ellipse with centre (cu, cv) and radii (ru, rv)."""
    return ((u - cu) * rv) ** 2 + ((v - cv) * ru) ** 2 <= (ru * rv) ** 2


def box(u: Noise, v: Noise, left: int, top: int, right: int, bottom: int) -> Mask:
    """Pixels inside a box, edges included."""
    return (u >= left) & (u <= right) & (v >= top) & (v <= bottom)


def polygon(u: Noise, v: Noise, *corners: tuple[int, int]) -> Mask:
    """Pixels inside a polygon, convex or not (even-odd rule, exact in integers)."""
    inside = np.zeros(u.shape, bool)
    for (u0, v0), (u1, v1) in zip(corners, corners[1:] + corners[:1], strict=True):
        crosses = (v0 > v) != (v1 > v)
        side = (u - u0) * (v1 - v0) - (v - v0) * (u1 - u0)
        inside ^= crosses & ((side < 0) == (v1 > v0))
    return inside


def frame(h: int, w: int, centre: tuple[int, int], radii: tuple[int, int], turn: int) -> tuple[Noise, Noise]:
    """Object coordinates (u, v) of every pixel; `turn` counts 11.25 degrees clockwise."""
    dy = np.arange(h, dtype=np.int32)[:, None] - centre[0]
    dx = np.arange(w, dtype=np.int32)[None, :] - centre[1]
    cos, sin = _sine(turn + 8), _sine(turn)
    u = (dx * cos + dy * sin) * 64 // (256 * radii[1])
    v = (dy * cos - dx * sin) * 64 // (256 * radii[0])
    return np.clip(u, -127, 127), np.clip(v, -127, 127)  # far pixels would overflow in `ellipse`


def _sine(step: int) -> int:
    step %= 32
    value = QUARTER_WAVE[min(step % 16, 16 - step % 16)]
    return value if step < 16 else -value


# Patterns on objects: True where the second colour shows.


def pattern(name: str, dice: Dice, u: Noise, v: Noise) -> Mask:
    """Where an object of pattern `name` shows its second colour."""
    if name == "plain":
        return np.zeros(u.shape, bool)
    if name == "wool":
        return dice.noise(u.shape[0], u.shape[1], 3, 3) > 135
    if name == "patches":
        return dice.noise(u.shape[0], u.shape[1], 9, 9) > 140
    if name == "stripes":
        return (u + dice.below(32)) % 32 < 14
    if name == "bands":
        return (v + dice.below(32)) % 32 < 14
    if name == "dots":
        return ellipse((u + dice.below(32)) % 32, (v + dice.below(32)) % 32, 16, 16, 10, 10)
    if name == "checks":
        return ((u + 64) // 22 + (v + 64) // 22) % 2 == 0
    assert name == "quarters", name
    return (u < 0) ^ (v < 0)
