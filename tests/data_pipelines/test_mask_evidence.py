"""Masks whose values cannot mean what the class list says: named with file, value and remedy; true ones go on."""

import io
import json

import numpy as np
import pytest
from PIL import Image

from data_pipelines.folder import FolderSource
from larvseg_jax.errors import UserError
from larvseg_jax.vocabulary import Vocabulary

ROWS = {"train": 4, "val": 2}


def write(folder, pictures, classes, name="classes.txt"):
    """A data folder whose masks are pictures(i) and whose photos are black."""
    for split, count in ROWS.items():
        for part in ("images", "masks"):
            (folder / part / split).mkdir(parents=True, exist_ok=True)
        for i in range(count):
            mask = pictures(i)
            Image.fromarray(mask).save(folder / "masks" / split / f"p{i}.png")
            Image.fromarray(np.zeros((*mask.shape[:2], 3), np.uint8)).save(folder / "images" / split / f"p{i}.png")
    (folder / name).write_text(classes if isinstance(classes, str) else json.dumps(classes))
    return folder


def stripes(*values, dtype=np.uint8):
    """A mask of 12x24 pixels with a stripe of every value."""
    return np.repeat(np.array(values, dtype), 24 // len(values))[None].repeat(12, axis=0)


def labels(folder, names, split="train"):
    source = FolderSource(folder, split, Vocabulary(tuple(names), (), ()).label_set(), masks=True, tags=False)
    return [source[i]["label"] for i in range(len(source))]


def in_colour(mask):
    return np.dstack([mask] * 3)


WRONG = {
    "0 and 255": (
        lambda i: stripes(0, 255),
        "background\nlesion\n",
        r"masks/train/p\d\.png: value 255 is ignored, and the 4 masks looked at hold nothing else but 0, so that they "
        r"show nothing of 'lesion': if 255 is 'lesion', write classes\.txt as '0: background', '255: lesion', a line",
    ),
    "0 and 255 in one": (lambda i: stripes(0, 255 if i == 3 else 0), "ground\nroad\n", r"p3\.png: value 255 is"),
    "0 and 255 as colours": (lambda i: in_colour(stripes(0, 255)), "background\nlesion\n", r"'255: lesion'"),
    "one name": (lambda i: stripes(0, 255), "lesion\n", r"write classes\.txt as '0: background', '255: lesion'"),
    "0 and 255 for three": (lambda i: stripes(0, 255), "background\ncat\ndog\n", r"nothing of 'cat', 'dog'"),
    "JSON": (lambda i: stripes(0, 255), {"names": ["a", "b"]}, r"add \"values\": \[0, 255\] to classes\.json"),
    "0, 127, 255": (
        lambda i: stripes(0, 127, 255),
        "background\ncat\ndog\n",
        r"masks/train/p\d\.png: value 127 is no class of .*classes\.txt; the masks hold 0, 127, 255, as many values as "
        r"it has classes: .* write classes\.txt as '0: background', '127: cat', '255: dog'",
    ),
    "0 and 128": (lambda i: stripes(0, 128), "background\ncat\n", r"'0: background', '128: cat'"),
    "spread over masks": (lambda i: stripes(0, (85, 170, 255, 0)[i]), "a\nb\nc\nd\n", r"'85: b', '170: c', '255: d'"),
    "0 and 1 for one name": (lambda i: stripes(0, 1), "lesion\n", r"'0: background', '1: lesion'"),
}  # fmt: skip


@pytest.mark.parametrize(("pictures", "classes", "message"), WRONG.values(), ids=WRONG)
def test_values_that_mean_something_else_are_named(tmp_path, pictures, classes, message):
    names = classes["names"] if isinstance(classes, dict) else classes.split()
    write(tmp_path, pictures, classes, "classes.json" if isinstance(classes, dict) else "classes.txt")
    with pytest.raises(UserError, match=message) as caught:
        labels(tmp_path, names)
    assert "\n" not in str(caught.value)


REMEDIES = {
    "lines": ("0: background\n255: lesion\n", "classes.txt", [0, 1]),
    "values": ({"names": ["background", "lesion"], "values": [0, 255]}, "classes.json", [0, 1]),
    "truly ignored": ("0: background\n1: lesion\n255: ignore\n", "classes.txt", [0, -1]),
    "truly ignored, JSON": ({"names": ["background", "lesion"], "ignore": 255}, "classes.json", [0, -1]),
}


@pytest.mark.parametrize(("classes", "name", "columns"), REMEDIES.values(), ids=REMEDIES)
def test_the_remedies_work(tmp_path, classes, name, columns):
    write(tmp_path, lambda i: stripes(0, 255), classes, name)
    for label in labels(tmp_path, ["background", "lesion"]):
        np.testing.assert_array_equal(label, stripes(*columns, dtype=np.int32))


RIGHT = {
    "borders": (lambda i: stripes(0, 255, 1, 255), ["background", "cat"]),
    "a class in one of them": (lambda i: stripes(0, 255) if i else stripes(0, 1), ["background", "cat"]),
    "nothing but the ground": (lambda i: stripes(0, 0), ["background", "cat"]),
    "nothing but ignored": (lambda i: stripes(255, 255), ["background", "cat"]),
    "another class and ignored": (lambda i: stripes(1, 255), ["background", "cat"]),
}


@pytest.mark.parametrize(("pictures", "names"), RIGHT.values(), ids=RIGHT)
def test_ignored_pixels_beside_classes_go_on_working(tmp_path, pictures, names):
    write(tmp_path, pictures, "\n".join(names))
    for i, label in enumerate(labels(tmp_path, names)):
        mask = pictures(i).astype(np.int32)
        np.testing.assert_array_equal(label, np.where(mask == 255, -1, mask))


def test_a_split_may_show_one_class_alone_where_the_others_show_more(tmp_path):
    write(tmp_path, lambda i: stripes(0, 1, 2), "background\ncat\ndog\n")
    for i in range(2):
        Image.fromarray(stripes(0, 255, 255)).save(tmp_path / "masks" / "val" / f"p{i}.png")
    assert [np.unique(label).tolist() for label in labels(tmp_path, ["background", "cat"], "val")] == [[-1, 0]] * 2


def jpeg(mask, file_format="JPEG"):
    file = io.BytesIO()
    Image.fromarray(mask).save(file, file_format, quality=75)
    return file


def disc(values, side=64):
    """A disc of the second value in a square of the first."""
    rows, columns = np.mgrid[:side, :side] - side / 2
    return np.where(np.hypot(rows, columns) < side / 3, values[1], values[0]).astype(np.uint8)


@pytest.mark.parametrize("classes", ["background\nlesion\n", "\n".join(f"c{i}" for i in range(150))])
@pytest.mark.parametrize("kind", ["JPEG", "WebP"])
def test_lossy_files_called_png_are_named(tmp_path, classes, kind):
    write(tmp_path, lambda i: disc((0, 1)), classes)
    (tmp_path / "masks" / "train" / "p2.png").write_bytes(jpeg(disc((0, 1)), kind).getvalue())
    with pytest.raises(
        UserError, match=rf"p2\.png: is a (lossy )?{kind}, which changes the numbers of a mask: export it anew"
    ):
        labels(tmp_path, classes.split())


@pytest.mark.parametrize(("values", "how"), [((0, 255), "jpeg"), ((3, 60), "jpeg"), ((0, 255), "resized")])
def test_smeared_values_are_named(tmp_path, values, how):
    names = [f"c{i}" for i in range(61)] if values[1] == 60 else ["background", "lesion"]
    if how == "jpeg":
        mask = np.asarray(Image.open(jpeg(disc(values))))
    else:
        mask = np.asarray(Image.fromarray(disc(values)).resize((90, 90), Image.Resampling.BICUBIC))
    write(tmp_path, lambda i: mask, "\n".join(names))
    with pytest.raises(
        UserError, match=r"p\d\.png: \d+ values that are no class of .*, strewn over .* as JPEG or smooth"
    ):
        labels(tmp_path, names)


def test_masks_of_another_class_list_are_not_called_smeared(tmp_path):
    write(tmp_path, lambda i: stripes(0, 1, 5, 6, 7, 8), "background\ncat\n")
    with pytest.raises(UserError, match=r"value 5 at row 0, column 8 is not among the classes 0\.\.1"):
        labels(tmp_path, ["background", "cat"])
