"""The classes of the generated scenes, and the grounds on which they are found."""

from typing import Literal, TypeAlias

Grounds: TypeAlias = Literal["several", "one"]
"""Novel classes are found on several grounds, or, the hard setting, each on its own ground only."""

_BASE_HABITAT = {
    # stuff: its own ground
    "sky": ("sky",), "grass": ("grass",), "water": ("water",), "sand": ("sand",),
    "road": ("road",), "brick": ("brick",), "snow": ("snow",), "wood": ("wood",),
    # objects: at home on several grounds
    "tree": ("grass", "snow", "sand"),
    "ball": ("grass", "sand", "wood", "road"),
    "boat": ("water", "water", "sand"),
    "cow": ("grass", "sand", "snow"),
    "car": ("road", "grass", "snow"),
    "house": ("grass", "snow", "sand", "road"),
    "flower": ("grass", "wood", "brick", "road"),
    "sign": ("road", "brick", "snow", "sand"),
}  # fmt: skip

_NOVEL_GROUNDS = {
    "fish": ("water", "sand", "snow", "wood"),
    "bird": ("sky", "grass", "water", "snow"),
    "kite": ("sky", "grass", "sand", "brick"),
    "sheep": ("grass", "snow", "sand", "road"),
    "cactus": ("sand", "grass", "road", "wood"),
    "starfish": ("sand", "water", "wood", "snow"),
    "bus": ("road", "grass", "snow", "sand"),
    "window": ("brick", "wood", "sand", "snow"),
    "clock": ("wood", "brick", "sky", "sand"),
    "ice": ("snow", "water", "road", "grass"),
}
"""The only one of the hard setting first."""

HABITATS: dict[Grounds, dict[str, tuple[str, ...]]] = {
    "several": _BASE_HABITAT | _NOVEL_GROUNDS,
    "one": _BASE_HABITAT | {name: grounds[:1] for name, grounds in _NOVEL_GROUNDS.items()},
}
"""On which grounds each class is found."""

CLASSES = (*_BASE_HABITAT, *_NOVEL_GROUNDS)
BASE_GROUNDS, BASE_OBJECTS = CLASSES[:8], CLASSES[8:16]
BASE = BASE_GROUNDS + BASE_OBJECTS
NOVEL = CLASSES[16:]
