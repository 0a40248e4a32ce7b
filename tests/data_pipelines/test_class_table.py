"""Class lists as tools and people write them: names, mask values and colours are those the lines give."""

import json

import numpy as np
import pytest

from data_pipelines.folder_classes import read_classes
from larvseg_jax.errors import UserError
from tests.data_pipelines.mask_files import png
from tests.data_pipelines.test_folder import NAMES, read_all, write
from tests.data_pipelines.test_folder import folder as folder  # fixture

ROAD = (("background", "road", "sky"), (0, 1, 2))
SPREAD = (("road", "sky"), (7, 23))

NUMBERED = {
    "names alone": ("background\nroad\nsky\n", ROAD),
    "colon": ("0: background\n1: road\n2: sky\n", ROAD),
    "blank": ("0 background\n1 road\n2 sky", ROAD),
    "tab": ("0\tbackground\n1\troad\n2\tsky", ROAD),
    "comma": ("0,background\n1,road\n2,sky", ROAD),
    "full stop": ("0. background\n1. road\n2. sky", ROAD),
    "bracket": ("0) background\n1) road\n2) sky", ROAD),
    "equals": ("0=background\n1 = road\n2 = sky", ROAD),
    "dash": ("0 - background\n1 - road\n2 - sky", ROAD),
    "quotes": ('0,"background"\n1,"road"\n2,"sky"', ROAD),
    "another order": ("2: sky\n0: background\n1: road\n", ROAD),
    "number last": ("background,0\nroad,1\nsky,2\n", ROAD),
    "Cityscapes' names and ids": ("road 7\nsky 23\n", SPREAD),
    "other values": ("7: road\n23: sky\n", SPREAD),
    "comments": ("# my classes\nbackground\nroad\nsky\n", ROAD),
    "columns": ("id,name\n0,background\n1,road\n2,sky\n", ROAD),
    "Roboflow": ("Pixel Value, Class\n0, background\n1, road\n2, sky\n", ROAD),
    "train ids": ("name;trainId;category\nroad;7;flat\nego;255;void\nplate;-1;void\nsky;23;sky\n", SPREAD),
    "labelme": ("__ignore__\n_background_\nroad\n", (("_background_", "road"), (0, 1))),
    "names with numbers": ("wall 1\nwall 2\ndoor 1\n", (("wall 1", "wall 2", "door 1"), (0, 1, 2))),
    "names that count": ("class 0\nclass 1\n", (("class 0", "class 1"), (0, 1))),
    "some names with numbers": ("car\n2 wheeler\n3d printer\n", (("car", "2 wheeler", "3d printer"), (0, 1, 2))),
    "money": ("1 euro\n2 euro\n5 euro\n", (("1 euro", "2 euro", "5 euro"), (0, 1, 2))),
    "names of several words": ("0: red light\n1: fire-hydrant, red\n", (("red light", "fire-hydrant, red"), (0, 1))),
    "labelme's name alone": ("__ignore__\nroad\nsky\n", (("__ignore__", "road", "sky"), (0, 1, 2))),
}  # fmt: skip


@pytest.mark.parametrize(("text", "expected"), NUMBERED.values(), ids=NUMBERED)
def test_values_of_the_lines(tmp_path, text, expected):
    (tmp_path / "classes.txt").write_text(text)
    classes = read_classes(tmp_path)
    assert (classes.names, classes.values) == expected
    mask = np.array([[*classes.values, 255]], np.uint8)
    ids = classes.decode(png(mask), "m.png").tolist()[0]
    assert ids == [*range(len(classes.names)), classes.ignore]


JSON = {
    "a list": (["background", "road", "sky"], ROAD),
    "numbers": ({"0": "background", "1": "road", "2": "sky"}, ROAD),
    "Hugging Face": ({"id2label": {"7": "road", "23": "sky"}, "model": 1}, SPREAD),
    "names first": ({"sky": 23, "road": 7}, SPREAD),
    "COCO": ({"images": [], "categories": [{"id": 7, "name": "road"}, {"id": 23, "name": "sky"}]}, SPREAD),
    "categories": ([{"id": 23, "name": "sky", "supercategory": ""}, {"id": 7, "name": "road"}], SPREAD),
    "values": ({"names": ["sky", "road"], "values": [23, 7]}, (("sky", "road"), (23, 7))),
    "YOLO": ({"nc": 2, "names": {"7": "road", "23": "sky"}}, SPREAD),
}


@pytest.mark.parametrize(("content", "expected"), JSON.values(), ids=JSON)
def test_values_in_json(tmp_path, content, expected):
    (tmp_path / "classes.json").write_text(json.dumps(content))
    classes = read_classes(tmp_path)
    assert (classes.names, classes.values) == expected
    assert classes.decode(png(np.array([expected[1]], np.uint8)), "m.png").tolist() == [list(range(len(expected[0])))]


CVAT = "# label:color_rgb:parts:actions\nbackground:0,0,0::\nroad:128,64,128::\nsky:70,130,180::\n"
COLOURED = {
    "CVAT": ("labelmap.txt", CVAT),
    "CVAT's lines as classes.txt": ("classes.txt", CVAT.partition("\n")[2]),
    "commas": ("classes.txt", "background,0,0,0\nroad,128,64,128\nsky,70,130,180\n"),
    "blanks": ("classes.txt", "background 0 0 0\nroad 128 64 128\nsky 70 130 180\n"),
    "CamVid": ("classes.txt", "0 0 0\tbackground\n128 64 128\troad\n70 130 180\tsky\n"),
    "brackets": ("classes.txt", "background: (0, 0, 0)\nroad: (128, 64, 128)\nsky: (70, 130, 180)\n"),
    "hexadecimal": ("classes.txt", "background #000000\nroad #804080\nsky #4682b4\n"),
    "numbers and colours": ("classes.txt", "0,background,0,0,0\n1,road,128,64,128\n2,sky,70,130,180\n"),
    "opaque": ("classes.txt", "background,0,0,0,255\nroad,128,64,128,255\nsky,70,130,180,255\n"),
    "columns": ("classes.txt", "name,r,g,b\nbackground,0,0,0\nroad,128,64,128\nsky,70,130,180\n"),
    "one column": ("classes.txt", 'label;color\nbackground;"0,0,0"\nroad;#804080\nsky;(70, 130, 180)\n'),
    "JSON": ("classes.json", '{"background": [0, 0, 0], "road": [128, 64, 128], "sky": [70, 130, 180]}'),
}


@pytest.mark.parametrize(("name", "text"), COLOURED.values(), ids=COLOURED)
def test_colours_of_the_lines(tmp_path, name, text):
    (tmp_path / name).write_text(text)
    classes = read_classes(tmp_path)
    assert (classes.names, classes.values) == (ROAD[0], None)
    mask = np.array([[[70, 130, 180], [0, 0, 0], [128, 64, 128]]], np.uint8)
    assert classes.decode(png(mask), "m.png").tolist() == [[2, 0, 1]]
    # The same list with masks of class ids.
    assert classes.decode(png(np.array([[2, 0, 1, 255]], np.uint8)), "m.png").tolist() == [[2, 0, 1, classes.ignore]]


def test_grey_colours_count_as_colours_and_not_as_numbers(tmp_path):
    (tmp_path / "classes.txt").write_text("lesion,255,255,255\nskin,0,0,0\n")
    classes = read_classes(tmp_path)
    assert classes.decode(png(np.array([[0, 255]], np.uint8)), "m.png").tolist() == [[1, 0]]
    with pytest.raises(UserError, match=r"m\.png: colour \[1, 1, 1\] at row 0, column 0 is none of the 2"):
        classes.decode(png(np.array([[1, 0]], np.uint8)), "m.png")


def test_what_was_read_is_said_in_one_line(tmp_path):
    for text, said in (
        ("0: background\n1: road\n", "classes.txt: '0: background' is read as value 0, class 'background'"),
        ("road,128,64,128\n", "classes.txt: 'road,128,64,128' is read as colour [128, 64, 128], class 'road'"),
        ("__ignore__\n_background_\n", "classes.txt: '__ignore__' is labelme's -1, so that '_background_' is value 0"),
        ("background\nroad\n", ""),
    ):
        (tmp_path / "classes.txt").write_text(text)
        assert read_classes(tmp_path).reading.removeprefix(f"{tmp_path}/") == said


MISTAKES = {
    "a number for two": ("classes.txt", "0: cat\n0: dog\n", r"'cat' and 'dog' have the same value 0"),
    "one line without": ("classes.txt", "0: cat\n1: dog\ncow\n", r"'cow' is not written as the other lines, such"),
    "blank, one without": ("classes.txt", "0 cat\n1 dog\n2 ape\ncow\n", r"'cow' is not written as the other lines"),
    "too large": ("classes.txt", "1: cat\n70000: dog\n", r"'dog' has the value 70000: mask values are 0 to 65534"),
    "unclear": ("classes.txt", "1,2,cat\n3,4,dog\n", r"not clear what the numbers in '1,2,cat' mean: write"),
    "colour": ("classes.txt", "cat,1,2,300\n", r"colour of 'cat' is \[1, 2, 300\]"),
    "labels.py": ("classes.txt", "Label( 'road', 7, 0, 'flat', 1, False, False, (1,2,3)),\n", r"labels\.py.* 7: road"),
    "two kinds of ids": ("classes.txt", "name,id,trainId\nroad,7,0\n", r"keep the column whose numbers your"),
    "photos": ("_classes.csv", "filename, cat, dog\na.jpg, 1, 0\n", r"a line per photo, not per class: .*classes\.txt"),
    "short row": ("classes.txt", "name,r,g,b\nroad,1,2\n", r"'road,1,2' does not fit the columns 'name,r,g,b'"),
    "two lists": ("labelmap.txt", "cat:1,2,3::\n", r"labelmap\.txt and .*classes\.txt list different classes"),
    "broken labelmap": ("labelmap.txt", "# label:color_rgb:parts:actions\ncat\n", r"'cat' is no line of CVAT's"),
    "COCO without ids": ("classes.json", '[{"id": 1, "name": "a"}, {"name": "b"}]', r"not every class has a number"),
    "values": ("classes.json", '{"names": ["a", "b"], "values": [1]}', r"`values` must be a list of 2 numbers"),
    "value and ignore": ("classes.json", '{"names": ["a"], "values": [255], "ignore": 255}', r"'a' and 'ignore' have"),
}  # fmt: skip


@pytest.mark.parametrize(("name", "text", "message"), MISTAKES.values(), ids=MISTAKES)
def test_lists_that_cannot_be_read_are_named(tmp_path, name, text, message):
    (tmp_path / name).write_text(text)
    if name == "labelmap.txt":
        (tmp_path / "classes.txt").write_text("cat\ndog\n")
    with pytest.raises(UserError, match=message) as caught:
        read_classes(tmp_path)
    assert "\n" not in str(caught.value)
    assert str(tmp_path / name) in str(caught.value)


def test_a_list_of_another_name_is_pointed_to(tmp_path):
    (tmp_path / "labels.txt").write_text("cat\n")
    with pytest.raises(
        UserError, match=r"neither classes\.json nor classes\.txt, only labels\.txt \(is it one of them"
    ):
        read_classes(tmp_path)


def test_image_labels_need_plain_numbers(folder):
    write(folder / "classes.json", {"names": list(NAMES), "values": [0, 5, 6, 7]})
    with pytest.raises(
        UserError, match=r"splits\.json: `image_labels` are numbers of classes, and .*classes\.json gives"
    ):
        read_all(folder, masks=False)


def test_a_value_that_the_list_does_not_have_is_named(tmp_path):
    (tmp_path / "classes.txt").write_text("7: road\n23: sky\n")
    with pytest.raises(
        UserError, match=r"m\.png: value 0 at row 0, column 1 is none of the 2 that .*: add it there \(if"
    ):
        read_classes(tmp_path).decode(png(np.array([[7, 0]], np.uint8)), "m.png")
