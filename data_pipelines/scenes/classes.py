"""The classes of the generated scenes, and the grounds on which they are found."""

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
BASE_GROUNDS, BASE_OBJECTS = CLASSES[:8], CLASSES[8:16]
BASE = BASE_GROUNDS + BASE_OBJECTS
NOVEL = CLASSES[16:]
