"""Coloured masks: every colour becomes its class exactly, or is named."""

import json

import numpy as np
import pytest
from PIL import Image

from data_pipelines.folder import FolderSource
from larvseg_jax.errors import UserError
from larvseg_jax.vocabulary import Vocabulary

NAMES = ["background", "cat", "dog"]
COLOURS = [[0, 0, 0], [128, 64, 0], [128, 64, 1]]  # two of them a single step apart
PIXELS = np.array([[[0, 0, 0], [128, 64, 0], [128, 64, 1]], [[255, 255, 255], [0, 0, 0], [128, 64, 0]]], np.uint8)
LABEL = [[0, 1, 2], [-1, 0, 1]]
LABELS = Vocabulary(tuple(NAMES), (), ()).label_set()


@pytest.fixture
def folder(tmp_path):
    for part in ("images", "masks"):
        (tmp_path / part / "train").mkdir(parents=True)
    Image.fromarray(np.zeros_like(PIXELS)).save(tmp_path / "images" / "train" / "a.png")
    Image.fromarray(PIXELS).save(tmp_path / "masks" / "train" / "a.png")
    classes(tmp_path)
    return tmp_path


def classes(folder, **changes):
    content = {"names": NAMES, "colours": COLOURS, "ignore": [255, 255, 255]} | changes
    (folder / "classes.json").write_text(json.dumps({k: v for k, v in content.items() if v is not None}))


def read(folder, label_set=LABELS):
    return FolderSource(folder, "train", label_set, masks=True, tags=False)[0]["label"]


def save(folder, picture):
    picture.save(folder / "masks" / "train" / "a.png")


def test_every_colour_becomes_its_class(folder):
    assert read(folder).tolist() == LABEL
    assert read(folder, Vocabulary(("dog", "cow"), (), ()).label_set()).tolist() == [[-1, -1, 0], [-1, -1, -1]]


def test_the_american_spelling_is_understood(folder):
    classes(folder, colours=None, colors=COLOURS)
    assert read(folder).tolist() == LABEL


def test_palettes_transparency_and_grey_are_resolved_to_their_colours(folder):
    palette = Image.fromarray(np.array([[7, 3, 2], [0, 7, 3]], np.uint8), "L").convert("P")
    table = np.zeros((256, 3), np.uint8)
    table[[7, 3, 2, 0]] = [[0, 0, 0], [128, 64, 0], [128, 64, 1], [255, 255, 255]]
    palette.putpalette(table.tobytes())
    palette.save(folder / "masks" / "train" / "a.png", transparency=b"\x00" * 8)
    assert read(folder).tolist() == LABEL
    save(folder, Image.fromarray(np.dstack([PIXELS, np.full((2, 3), 9, np.uint8)])))
    assert read(folder).tolist() == LABEL
    save(folder, Image.fromarray(np.array([[0, 255, 0], [0, 0, 255]], np.uint8)))
    assert read(folder).tolist() == [[0, -1, 0], [0, 0, -1]]


def test_classes_of_the_same_name_may_have_two_colours(folder):
    classes(folder, names=["background", "cat", "cat"])
    assert read(folder).tolist() == [[0, 1, 1], [-1, 0, 1]]


MISTAKES = {
    "unknown colour": (
        lambda f: classes(f, colours=[[0, 0, 0], [128, 64, 0], [128, 64, 2]]),
        r"masks/train/a\.png: colour \[128, 64, 1\] at row 0, column 2 is none of the 4 of .*classes\.json "
        r"\(1 such pixels\): add it there, or export the mask without smoothed edges",
    ),
    "no ignore colour": (lambda f: classes(f, ignore=None), r"colour \[255, 255, 255\] at row 1, column 0 is none of"),
    "ignore as a value": (
        lambda f: classes(f, ignore=255),
        r"classes\.json: the colour of 'ignore' is 255: give \[red, green, blue\]",
    ),
    "too few colours": (lambda f: classes(f, colours=COLOURS[:2]), r"classes\.json: 2 `colours` for 3 `names`"),
    "no list": (lambda f: classes(f, colours="red"), r"classes\.json: no list of `colours` for 3 `names`"),
    "beyond 255": (
        lambda f: classes(f, colours=[[0, 0, 0], [1, 2, 256], [3, 3, 3]]),
        r"classes\.json: the colour of 'cat' is \[1, 2, 256\]: give",
    ),
    "one colour for two": (
        lambda f: classes(f, colours=[[0, 0, 0], [1, 1, 1], [1, 1, 1]]),
        r"'cat' and 'dog' have the same colour \[1, 1, 1\]",
    ),
    "ignore is a class": (lambda f: classes(f, ignore=[0, 0, 0]), r"'background' and 'ignore' have the same colour"),
    "16 bits": (
        lambda f: save(f, Image.fromarray(np.zeros((2, 3), np.uint16))),
        r"a\.png: .*classes\.json gives `colours`, but this mask is I;16: save it as an 8-bit RGB picture",
    ),
    "broken": (lambda f: (f / "masks" / "train" / "a.png").write_bytes(b"x"), r"a\.png: no readable mask in these 1"),
    "other size": (
        lambda f: save(f, Image.fromarray(PIXELS[:1])),
        r"a\.png: mask of 3x1 pixels for a photo of 3x2: make them the same size",
    ),
}


@pytest.mark.parametrize(("spoil", "message"), MISTAKES.values(), ids=MISTAKES)
def test_mistakes_are_named(folder, spoil, message):
    spoil(folder)
    with pytest.raises(UserError, match=message) as caught:
        read(folder)
    assert "\n" not in str(caught.value)
