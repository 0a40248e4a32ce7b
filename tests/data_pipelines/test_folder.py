"""The folder source: what it reads, and that each mistake is named with its file, value and remedy."""

import json
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from data_pipelines.folder import FolderSource
from data_pipelines.sources import SourceConfig, open_source
from larvseg_jax.errors import UserError
from larvseg_jax.vocabulary import Vocabulary

NAMES = ("background", "cat", "dog", "grass")
STEMS = ("one", "two", "three")
LABELS = Vocabulary(NAMES, (), ()).label_set()


def photo(i):
    return np.random.default_rng(i).integers(0, 256, (12 + i, 17, 3), dtype=np.uint8)


def mask(i):
    ids = np.random.default_rng(i).integers(0, 4, (12 + i, 17), dtype=np.uint8)
    ids[0, :3] = 255
    return ids


@pytest.fixture
def folder(tmp_path):
    for part in ("images", "masks"):
        (tmp_path / part).mkdir()
    for i, (stem, extension) in enumerate(zip(STEMS, (".png", ".PNG", ".jpeg"), strict=True)):
        Image.fromarray(photo(i)).save(tmp_path / "images" / (stem + extension))
        Image.fromarray(mask(i)).save(tmp_path / "masks" / f"{stem}.png")
    (tmp_path / "images" / "notes.txt").write_text("no photo")
    write(tmp_path / "classes.json", {"names": NAMES, "ignore": 255, "background": 0})
    image_labels = {"one": [3, 1], "two": [2, 2], "three": []}
    suggested = {"base": ["cat"], "train_masks": ["three"]}
    write(tmp_path / "splits.json", {"train": STEMS, "image_labels": image_labels, "suggested": suggested})
    return tmp_path


def write(file, content):
    file.write_text(json.dumps(content))


def change(file, **changes):
    write(file, json.loads(file.read_text()) | changes)


def read_all(folder, split="train", label_set=LABELS, masks=True, tags=True):
    source = FolderSource(folder, split, label_set, masks=masks, tags=tags)
    return [source[i] for i in range(len(source))]


def test_reads_photos_masks_and_tags(folder):
    examples = read_all(folder)
    assert [e["id"] for e in examples] == list(STEMS)
    for i, example in enumerate(examples):
        assert example["image"].dtype == np.uint8
        assert example["label"].dtype == example["tags"].dtype == np.int32
        np.testing.assert_array_equal(example["label"], np.where(mask(i) == 255, -1, mask(i).astype(int)))
    np.testing.assert_array_equal(examples[0]["image"], photo(0))
    np.testing.assert_array_equal(examples[1]["image"], photo(1))
    assert [e["tags"].tolist() for e in examples] == [[1, 3], [2], []]


def test_reads_only_what_is_asked_for(folder):
    assert set(read_all(folder, tags=False)[0]) == {"id", "image", "label"}
    for file in (folder / "masks").iterdir():
        file.unlink()
    (folder / "masks").rmdir()
    assert set(read_all(folder, masks=False)[0]) == {"id", "image", "tags"}
    assert set(read_all(folder, masks=False, tags=False)[0]) == {"id", "image"}


def test_labels_are_columns_and_unknown_classes_disappear(folder):
    vocabulary = Vocabulary(("lion", *NAMES), (), ())
    examples = read_all(folder, label_set=vocabulary.label_set(("grass", "lion", "cat")))
    for i, example in enumerate(examples):
        column = {0: -1, 1: 2, 2: -1, 3: 0, 255: -1}  # by hand: background and dog are not in the stream
        np.testing.assert_array_equal(example["label"], np.vectorize(column.get)(mask(i)))
    assert [e["tags"].tolist() for e in examples] == [[0, 2], [], []]


def test_classes_of_the_same_name_share_a_column(folder):
    change(folder / "classes.json", names=["background", "cat", "cat", "grass"])
    example = read_all(folder)[1]
    np.testing.assert_array_equal(example["label"] == 1, (mask(1) == 1) | (mask(1) == 2))
    assert example["tags"].tolist() == [1]


def test_16_bit_masks(folder):
    names = [f"c{i}" for i in range(400)] + ["dog"]
    write(folder / "classes.json", {"names": names, "ignore": 65535})
    ids = np.array([[400, 3, 65535] * 4] * 12, np.uint16)[:, :12]
    Image.fromarray(ids).save(folder / "masks" / "one.png")
    Image.fromarray(np.zeros((12, 12, 3), np.uint8)).save(folder / "images" / "one.png")
    write(folder / "splits.json", {"train": ["one"]})
    np.testing.assert_array_equal(read_all(folder, tags=False)[0]["label"], np.where(ids == 400, 2, -1))


def test_split_names_may_be_dotted(folder):
    assert [e["id"] for e in read_all(folder, "suggested.train_masks")] == ["three"]


def where(**changes):
    return SourceConfig(**(dict(tfds="", folder="", class_folders="", split="train") | changes))


def test_open_source_finds_the_data_root(folder, monkeypatch):
    assert len(open_source(where(folder=folder.name), str(folder.parent), LABELS, "masks")) == 3
    monkeypatch.setenv("LARVSEG_DATA", str(folder.parent))
    assert len(open_source(where(folder=folder.name), "", LABELS, "masks")) == 3
    monkeypatch.delenv("LARVSEG_DATA")
    monkeypatch.chdir(folder.parent)
    assert len(open_source(where(folder=folder.name), "", LABELS, "masks")) == 3
    with pytest.raises(UserError, match=r"no-such does not exist: .*--config\.data_root=.* LARVSEG_DATA"):
        open_source(where(folder="no-such"), "", LABELS, "masks")
    for both_or_none in (where(), where(folder="a", tfds="b"), where(folder="a", class_folders="b")):
        with pytest.raises(UserError, match="name one of them"):
            open_source(both_or_none, "", LABELS, "masks")


def edit_mask(folder, value, shape=(12, 17)):
    Image.fromarray(np.full(shape, value, np.uint8)).save(folder / "masks" / "one.png")


MISTAKES = {
    "no class list": (
        lambda f: (f / "classes.json").unlink(),
        r"has neither classes\.json nor classes\.txt: write classes\.txt, one class name per line",
    ),
    "tags without splits.json": (
        lambda f: (f / "splits.json").unlink(),
        r"has no splits\.json, whose `image_labels` are the tags of its photos: .*tags_from='crop'",
    ),
    "bad JSON": (lambda f: (f / "splits.json").write_text("{"), r"splits\.json: not valid JSON"),
    "JSON list": (lambda f: write(f / "classes.json", [1, 2]), r"classes\.json: holds a list that is no list"),
    "no names": (lambda f: write(f / "classes.json", {"ignore": 255}), r"classes\.json: `names` must be"),
    "ignore too large": (
        lambda f: change(f / "classes.json", ignore=70000),
        r"classes\.json: `ignore` is 70000: give a mask value from 0 to 65535",
    ),
    "ignore is a class": (
        lambda f: change(f / "classes.json", ignore=2),
        r"classes\.json: ignore value 2 is also the id of class 'dog'",
    ),
    "foreign classes": (
        lambda f: change(f / "classes.json", names=["a", "b"]),
        r"classes\.json: none of its 2 classes \(a, b, \.\.\.\) is among the stream's 4",
    ),
    "no such split": (
        lambda f: write(f / "splits.json", {"val": ["one"], "suggested": {"masks": []}}),
        r"splits\.json: no split 'train': it has val, suggested\.masks",
    ),
    "empty split": (lambda f: change(f / "splits.json", train=[]), r"splits\.json: split 'train' is empty"),
    "numbers for names": (lambda f: change(f / "splits.json", train=[7]), r"splits\.json: .* holds 7: write"),
    "photo twice": (lambda f: change(f / "splits.json", train=["one", "one"]), r"lists 'one' twice: remove"),
    "no photo": (
        lambda f: (f / "images" / "two.PNG").unlink(),
        r"images/two\.jpg does not exist \(1 of 3 files missing\): add it or take it out of .*splits\.json",
    ),
    "two photos of one name": (
        lambda f: (f / "images" / "two.jpg").write_bytes(b""),
        r"images/two\.PNG and .*images/two\.jpg are both photo 'two': remove one",
    ),
    "no mask": (
        lambda f: (f / "masks" / "two.png").unlink(),
        r"masks/two\.png does not exist \(1 of 3 files missing\): add it or take it out of .*splits\.json",
    ),
    "no masks folder": (lambda f: (f / "masks").rename(f / "m"), r"masks does not exist"),
    "no tags": (
        lambda f: change(f / "splits.json", image_labels={"one": []}),
        r"splits\.json: photo 'two' has no entry in `image_labels` \(2 of 3 have none\): add",
    ),
    "tag outside": (
        lambda f: change(f / "splits.json", image_labels={"one": [], "two": [1, 4], "three": []}),
        r"splits\.json, photo 'two': image label 4 is not among the classes 0\.\.3 of .*classes\.json",
    ),
    "tag as text": (
        lambda f: change(f / "splits.json", image_labels={"one": ["cat"], "two": [], "three": []}),
        r"photo 'one': image label 'cat' is not among the classes 0\.\.3",
    ),
    "tag without list": (
        lambda f: change(f / "splits.json", image_labels={"one": 1, "two": [], "three": []}),
        r"photo 'one': image labels are 1: give a list",
    ),
    "tags for nobody": (
        lambda f: change(f / "splits.json", image_labels=[1, 2]),
        r"splits\.json: `image_labels` is a list: it must map photos",
    ),
    "broken photo": (
        lambda f: (f / "images" / "two.PNG").write_bytes(b"x"),
        r"images/two\.PNG: no readable picture",
    ),
    "broken mask": (
        lambda f: (f / "masks" / "two.png").write_bytes(b"x"),
        r"masks/two\.png: no readable mask",
    ),
    "mask of another size": (
        lambda f: edit_mask(f, 0, (11, 17)),
        r"masks/one\.png: mask of 17x11 pixels for a photo of 17x12: make them the same size",
    ),
    "mask value outside": (
        lambda f: edit_mask(f, 4),
        r"masks/one\.png: value 4 at row 0, column 0 is not among the classes 0\.\.3 of .* nor 255",
    ),
}


@pytest.mark.parametrize(("spoil", "message"), MISTAKES.values(), ids=MISTAKES)
def test_mistakes_are_named(folder, spoil, message):
    spoil(folder)
    with pytest.raises(UserError, match=message) as caught:
        read_all(folder)
    assert "\n" not in str(caught.value)


def test_mask_values_beyond_16_bits_are_refused(folder):
    Image.fromarray(np.full((12, 17), 70000, np.int32)).save(folder / "masks" / "one.png", "TIFF")
    with pytest.raises(UserError, match=r"one\.png: value 70000 at row 0, column 0"):
        read_all(folder)


@pytest.mark.parametrize("name", ["ccp", "voc12_animals"])
def test_real_photographs(shared: Path, name):
    folder = shared / "realdata" / name
    splits = json.loads((folder / "splits.json").read_text())
    names = json.loads((folder / "classes.json").read_text())["names"]
    label_set = Vocabulary(tuple(names), (), ()).label_set()
    source = FolderSource(folder, "val", label_set, masks=True, tags=True)
    assert len(source) == len(splits["val"])
    for i in range(0, len(source), 25):
        example = source[i]
        ids = np.asarray(Image.open(folder / "masks" / f"{example['id']}.png"))
        np.testing.assert_array_equal(example["label"], np.where(ids == 255, -1, ids.astype(int)))
        assert set(np.unique(example["label"])) - {-1, 0} <= set(example["tags"].tolist())
    tagged = FolderSource(
        folder, "train_image_labels_only" if name == "ccp" else "train", label_set, masks=False, tags=True
    )
    assert len(tagged[0]["tags"])
