"""The objects of the generated scenes: what they look like, and whether they stand on their ground or lie within it.

No single property names a class. Outlines are shared (cows and sheep; cars and buses; signs, clocks and
balls; flowers and starfish), so are patterns (tree and sheep; fish, ball and cactus; boat, bus and sign)
and colours. It takes outline, pattern and colour together.
"""

import dataclasses
from collections.abc import Callable

from data_pipelines.scenes.drawing import Dice, Layers, Mask, Noise, box, ellipse, polygon

STAR = (
    (0, -64),
    (18, -24),
    (61, -20),
    (29, 9),
    (38, 52),
    (0, 31),
    (-38, 52),
    (-29, 9),
    (-61, -20),
    (-18, -24),
)

COLOURS = {
    "red": (205, 50, 45),
    "orange": (235, 140, 40),
    "yellow": (240, 210, 60),
    "green": (60, 140, 60),
    "olive": (110, 118, 48),
    "blue": (50, 90, 190),
    "purple": (140, 70, 160),
    "pink": (235, 150, 175),
    "brown": (120, 78, 50),
    "white": (240, 238, 232),
    "grey": (140, 142, 148),
    "black": (42, 40, 46),
}


@dataclasses.dataclass(frozen=True)
class Thing:
    """How objects of one class are drawn.

    Attributes:
      draw: (dice, u, v) -> layers. A layer's colour is "body" (patterned in two colours), "main", "second",
        or a name in COLOURS.
      patterns: names for `drawing.pattern`.
      colours: pairs "main second" of names in COLOURS; each object's colours are a little off.
      height: half the height in percent of half the width, lowest and highest.
      turn: most steps of 11.25 degrees by which it is tilted.
      stands: its foot is on its ground; otherwise all of it is surrounded by its ground.
    """

    draw: Callable[[Dice, Noise, Noise], Layers]
    patterns: tuple[str, ...]
    colours: tuple[str, ...]
    height: tuple[int, int] = (85, 118)
    turn: int = 0
    stands: bool = True


def _tree(dice: Dice, u: Noise, v: Noise) -> Layers:
    crown = dice.pick(("round", "fir", "clumps"))
    if crown == "round":
        leaves = ellipse(u, v, 0, -18, dice.between(40, 58), 46)
    elif crown == "fir":
        leaves = polygon(u, v, (0, -64), (36, -14), (-36, -14)) | polygon(u, v, (0, -36), (50, 34), (-50, 34))
    else:
        leaves = ellipse(u, v, -24, -6, 34, 30) | ellipse(u, v, 26, -8, 34, 28) | ellipse(u, v, 0, -34, 36, 30)
    return [(box(u, v, -9, 0, 9, 64), "brown"), (leaves, "body")]


def _ball(dice: Dice, u: Noise, v: Noise) -> Layers:
    return [(ellipse(u, v, 0, 0, 60, 60), "body"), (ellipse(u, v, -20, -24, 12, 9), "white")]


def _boat(dice: Dice, u: Noise, v: Noise) -> Layers:
    hull = polygon(u, v, (-62, 18), (62, 18), (40, 54), (-42, 54))
    sails = polygon(u, v, (6, -62), (6, 10), (54, 10))
    if dice.chance(1, 2):
        sails |= polygon(u, v, (-6, -48), (-6, 10), (-44, 10))
    return [(box(u, v, -3, -62, 3, 20), "brown"), (sails, "second"), (hull, "body")]


def _animal(dice: Dice, u: Noise, v: Noise, face: str) -> Layers:
    feet = dice.between(46, 62)
    legs = box(u, v, -44, 8, -33, feet) | box(u, v, -26, 8, -15, feet)
    legs |= box(u, v, 10, 8, 21, feet) | box(u, v, 26, 8, 37, feet)
    body = ellipse(u, v, -6, -2, dice.between(46, 54), dice.between(25, 33))
    head = ellipse(u, v, 44, dice.between(-30, -8), 19, 16)
    return [(legs, face), (body, "body"), (head, face)]


def _cow(dice: Dice, u: Noise, v: Noise) -> Layers:
    return _animal(dice, u, v, dice.pick(("main", "second")))


def _sheep(dice: Dice, u: Noise, v: Noise) -> Layers:
    return _animal(dice, u, v, dice.pick(("main", "black", "white")))


def _wheels(u: Noise, v: Noise, radius: int) -> Layers:
    tyres = ellipse(u, v, -36, 36, radius, radius) | ellipse(u, v, 36, 36, radius, radius)
    hubs = ellipse(u, v, -36, 36, 6, 6) | ellipse(u, v, 36, 36, 6, 6)
    return [(tyres, "black"), (hubs, "grey")]


def _car(dice: Dice, u: Noise, v: Noise) -> Layers:
    roof = dice.between(-36, -24)
    cabin = polygon(u, v, (-44, 4), (-28, roof), (20, roof), (42, 4))
    panes = polygon(u, v, (-32, 0), (-22, roof + 8), (-6, roof + 8), (-6, 0))
    panes |= polygon(u, v, (2, 0), (2, roof + 8), (16, roof + 8), (30, 0))
    return [(cabin, "main"), (panes, "white"), (box(u, v, -63, 0, 63, 36), "body"), *_wheels(u, v, 18)]


def _bus(dice: Dice, u: Noise, v: Noise) -> Layers:
    roof = dice.between(-54, -40)
    panes = box(u, v, -54, roof + 10, 54, roof + 34) & ((u + 54) % 28 < 20)
    return [(box(u, v, -63, roof, 63, 38), "body"), (panes, "white"), *_wheels(u, v, 15)]


def _house(dice: Dice, u: Noise, v: Noise) -> Layers:
    roof = polygon(u, v, (-62, 0), (dice.between(-20, 20), -62), (62, 0))
    door, pane = dice.pick(((-34, 8), (6, -34)))
    return [
        (box(u, v, -48, -6, 48, 62), "body"),
        (roof, "second"),
        (box(u, v, door, 22, door + 20, 62), "brown"),
        (box(u, v, pane, 14, pane + 24, 36), "white"),
    ]


def _flower(dice: Dice, u: Noise, v: Noise) -> Layers:
    if dice.chance(1, 2):
        petals = polygon(u, v, *((p * 3 // 4, q * 3 // 4 - 18) for p, q in STAR))
    else:
        petals = ellipse(u, v, 0, -22, 15, 42) | ellipse(u, v, 0, -22, 42, 15) | ellipse(u, v, 0, -22, 28, 28)
    leaf = ellipse(u, v, 20, 38, 20, 9)
    return [
        (box(u, v, -5, 0, 5, 64) | leaf, "green"),
        (petals, "body"),
        (ellipse(u, v, 0, -20, 13, 13), "second"),
    ]


def _plate(shape: str, u: Noise, v: Noise, cv: int, r: int) -> Mask:
    """A disc, box, diamond or triangle with centre (0, cv)."""
    if shape == "disc":
        return ellipse(u, v, 0, cv, r, r)
    if shape == "box":
        return box(u, v, -r * 7 // 8, cv - r * 7 // 8, r * 7 // 8, cv + r * 7 // 8)
    if shape == "diamond":
        return polygon(u, v, (0, cv - r), (r, cv), (0, cv + r), (-r, cv))
    return polygon(u, v, (0, cv - r), (r, cv + r * 3 // 4), (-r, cv + r * 3 // 4))


def _sign(dice: Dice, u: Noise, v: Noise) -> Layers:
    shape = dice.pick(("disc", "diamond", "triangle", "box"))
    return [
        (box(u, v, -5, 0, 5, 64), "grey"),
        (_plate(shape, u, v, -20, 43), "second"),
        (_plate(shape, u, v, -20, 29), "body"),
    ]


def _clock(dice: Dice, u: Noise, v: Noise) -> Layers:
    shape = dice.pick(("disc", "disc", "box", "diamond"))
    hand = dice.pick(((34, -14), (30, 20), (-34, 10), (-30, -18)))
    long_hand = polygon(u, v, (-5, 5), (5, 5), (4, -42), (-4, -42))
    short_hand = polygon(u, v, (0, -6), hand, (0, 6))
    return [
        (_plate(shape, u, v, 0, 62), "second"),
        (_plate(shape, u, v, 0, 49), "body"),
        (long_hand | short_hand, "black"),
    ]


def _fish(dice: Dice, u: Noise, v: Noise) -> Layers:
    tail = polygon(u, v, (-20, 0), (-62, -34), (-50, 0), (-62, 34))
    fin = polygon(u, v, (-6, -18), (26, -18), (4, -48))
    body = ellipse(u, v, 14, 0, 46, dice.between(24, 36))
    return [(tail | fin, "main"), (body, "body"), (ellipse(u, v, 42, -8, 6, 6), "black")]


def _bird(dice: Dice, u: Noise, v: Noise) -> Layers:
    tail = polygon(u, v, (-20, 6), (-62, -16), (-56, 22))
    body = ellipse(u, v, 4, 6, 40, dice.between(15, 22)) | ellipse(u, v, 40, -6, 17, 15)
    tip = dice.between(-58, -40)
    wing = polygon(u, v, (-18, 4), (20, 4), (-26, tip)) | polygon(u, v, (0, 2), (26, 4), (8, tip + 4))
    beak = polygon(u, v, (52, -12), (64, -4), (52, 0))
    return [(tail, "main"), (body, "body"), (beak, "orange"), (wing, "second")]


def _kite(dice: Dice, u: Noise, v: Noise) -> Layers:
    cross = dice.between(-28, -16)
    sail = polygon(u, v, (0, -64), (42, cross), (0, 34), (-42, cross))
    bows = ellipse(u, v, 5, 42, 8, 5) | ellipse(u, v, -5, 52, 8, 5) | ellipse(u, v, 5, 61, 8, 5)
    return [(bows, "second"), (sail, "body")]


def _cactus(dice: Dice, u: Noise, v: Noise) -> Layers:
    low, high = dice.between(-4, 18), dice.between(-14, 8)
    column = box(u, v, -15, -48, 15, 64) | ellipse(u, v, 0, -48, 15, 15)
    left = box(u, v, -48, low - 30, -30, low) | box(u, v, -48, low - 8, 0, low + 10)
    right = box(u, v, 30, high - 34, 48, high) | box(u, v, 0, high - 8, 48, high + 10)
    return [(column | left | right if dice.chance(4, 5) else column | left, "body")]


def _starfish(dice: Dice, u: Noise, v: Noise) -> Layers:
    return [(polygon(u, v, *STAR) | ellipse(u, v, 0, 0, 34, 34), "body")]


def _window(dice: Dice, u: Noise, v: Noise) -> Layers:
    panes = box(u, v, -38, -54, 38, 54)
    cross = box(u, v, -5, -54, 5, 54)
    for height in dice.pick(((0,), (-18, 18), (-30,))):
        cross |= box(u, v, -38, height - 4, 38, height + 4)
    return [(box(u, v, -50, -64, 50, 64), "second"), (panes, "body"), (cross, "second")]


THINGS = {
    "tree": Thing(_tree, ("wool",), ("green olive", "orange green"), (105, 125)),
    "ball": Thing(_ball, ("stripes", "dots"), ("red white", "blue yellow"), turn=16),
    "boat": Thing(_boat, ("bands",), ("brown white", "red white"), (90, 115), turn=1),
    "cow": Thing(_cow, ("patches",), ("white black", "brown white"), (80, 95)),
    "car": Thing(_car, ("plain",), ("red grey", "blue grey"), (78, 92)),
    "house": Thing(_house, ("checks",), ("yellow red", "white brown"), (90, 110)),
    "flower": Thing(_flower, ("plain",), ("pink yellow", "purple yellow"), (105, 125), turn=1),
    "sign": Thing(_sign, ("bands",), ("yellow black", "blue white"), (110, 130)),
    "fish": Thing(_fish, ("stripes",), ("orange white", "yellow purple"), (68, 88), 3, stands=False),
    "bird": Thing(_bird, ("plain",), ("black white", "brown white"), (75, 95), 3, stands=False),
    "kite": Thing(_kite, ("quarters",), ("red yellow", "green purple"), (110, 130), 3, stands=False),
    "sheep": Thing(_sheep, ("wool",), ("white grey", "black grey"), (80, 95)),
    "cactus": Thing(_cactus, ("stripes",), ("green yellow", "olive green"), (115, 135)),
    "starfish": Thing(_starfish, ("dots",), ("orange red", "purple pink"), (92, 108), 16, stands=False),
    "bus": Thing(_bus, ("bands",), ("yellow red", "green white"), (78, 95)),
    "window": Thing(_window, ("plain",), ("blue white", "yellow brown"), (105, 130), stands=False),
    "clock": Thing(_clock, ("plain",), ("white black", "yellow brown"), (92, 108), 1, stands=False),
}
