"""The folder source where a sub-folder is a split: images/train/, masks/train/, classes.txt."""

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from larvseg_jax.errors import UserError
from tests.data_pipelines.test_folder import mask, photo, read_all, write


@pytest.fixture
def split_folders(tmp_path):
    """Photos 0 and 1 are in train, 2 is in val; the class list as Windows' editor writes it; files of others."""
    for i, (split, name) in enumerate([("train", "one.png"), ("train", "two.PNG"), ("val", "three.jpeg")]):
        for part, file, pixels in (("images", name, photo(i)), ("masks", f"{Path(name).stem}.png", mask(i))):
            (tmp_path / part / split).mkdir(parents=True, exist_ok=True)
            Image.fromarray(pixels).save(tmp_path / part / split / file)
    (tmp_path / "classes.txt").write_text("\ufeffbackground\r\n cat \r\ndog\r\ngrass\r\n\r\n", encoding="utf-8")
    for left in (".DS_Store", "Thumbs.db", "._one.png", "desktop.ini"):
        (tmp_path / "images" / "train" / left).write_bytes(b"not ours")
    return tmp_path


def test_sub_folders_are_the_splits(split_folders):
    examples = read_all(split_folders, tags=False)
    assert [e["id"] for e in examples] == ["one", "two"]
    for i, example in enumerate(examples):
        np.testing.assert_array_equal(example["image"], photo(i))
        np.testing.assert_array_equal(example["label"], np.where(mask(i) == 255, -1, mask(i).astype(int)))
    assert [e["id"] for e in read_all(split_folders, "val", tags=False)] == ["three"]


def test_photos_may_be_webp_bmp_and_tiff(split_folders):
    images = split_folders / "images" / "train"
    for i, (stem, extension, options) in enumerate([("one", ".webp", {"lossless": True}), ("two", ".TIFF", {})]):
        (images / f"{stem}{'.png' if i == 0 else '.PNG'}").unlink()
        Image.fromarray(photo(i)).save(images / f"{stem}{extension}", **options)
    Image.fromarray(photo(5)).save(images / "zebra.bmp")
    assert [e["id"] for e in read_all(split_folders, masks=False, tags=False)] == ["one", "two", "zebra"]
    for i, example in zip((0, 1, 5), read_all(split_folders, masks=False, tags=False), strict=True):
        np.testing.assert_array_equal(example["image"], photo(i))


def test_classes_json_decides_where_both_lists_are(split_folders):
    write(split_folders / "classes.json", {"names": ["background", "dog", "cat", "grass"], "ignore": 255})
    label = read_all(split_folders, tags=False)[0]["label"]
    np.testing.assert_array_equal(label == 2, mask(0) == 1)


def test_more_than_255_classes_ignore_65535(split_folders):
    (split_folders / "classes.txt").write_text("\n".join([f"c{i}" for i in range(255)] + ["dog"]))
    ids = np.full((12, 17), 255, np.uint16)
    ids[0] = 65535
    for stem, i in (("one", 0), ("two", 1)):
        Image.fromarray(np.resize(ids, (12 + i, 17))).save(split_folders / "masks" / "train" / f"{stem}.png")
    expected = np.full((12, 17), 2)
    expected[0] = -1
    np.testing.assert_array_equal(read_all(split_folders, tags=False)[0]["label"], expected)


SPLIT_MISTAKES = {
    "no images": (lambda f: (f / "images").rename(f / "photos"), r"images does not exist: put the photos of split"),
    "no such split": (
        lambda f: (f / "images" / "train").rename(f / "images" / "training"),
        r"images/train does not exist, it has the folders training, val: put the photos of split 'train' into",
    ),
    "no photos": (
        lambda f: [file.unlink() for file in (f / "images" / "train").iterdir()],
        r"images/train holds no pictures",
    ),
    "text among photos": (
        lambda f: (f / "images" / "train" / "notes.txt").write_text("mine"),
        r"images/train/notes\.txt is no picture \(jpg, .*\): convert it or take it out",
    ),
    "folder among photos": (
        lambda f: (f / "images" / "train" / "day1").mkdir(),
        r"images/train/day1 is a folder: pictures must lie in .*images/train itself",
    ),
    "two photos of one name": (
        lambda f: (f / "images" / "train" / "one.jpg").write_bytes(b""),
        r"images/train/one\.jpg and .*images/train/one\.png are both photo 'one': remove one",
    ),
    "no mask": (
        lambda f: (f / "masks" / "train" / "two.png").unlink(),
        r"masks/train/two\.png does not exist \(1 of 2 files missing\): add it or take its photo out of .*images/train",
    ),
    "mask with another name": (
        lambda f: (f / "masks" / "train" / "two.png").rename(f / "masks" / "train" / "two_mask.png"),
        r"masks/train/two\.png does not exist, there is two_mask\.png \(1 of 2",
    ),
    "mask as JPEG": (
        lambda f: (f / "masks" / "train" / "two.png").rename(f / "masks" / "train" / "two.jpg"),
        r"masks/train/two\.png does not exist, there is two\.jpg \(1 of 2 .*: export the masks as PNG, as JPEG changes",
    ),
    "no masks": (
        lambda f: (f / "masks" / "train").rename(f / "masks" / "t"),
        r"masks/train does not exist: it must hold one\.png and 1 more",
    ),
    "empty class list": (lambda f: (f / "classes.txt").write_text(" \n"), r"classes\.txt is empty: write one"),
    "empty line": (
        lambda f: (f / "classes.txt").write_text("background\n\ncat\n"),
        r"classes\.txt: line 2 is empty and would be mask value 1: name it",
    ),
    "Latin-1": (
        lambda f: (f / "classes.txt").write_bytes("background\nKäfer\n".encode("latin-1")),
        r"classes\.txt: byte 12 is not UTF-8",
    ),
}


@pytest.mark.parametrize(("spoil", "message"), SPLIT_MISTAKES.values(), ids=SPLIT_MISTAKES)
def test_mistakes_in_split_folders_are_named(split_folders, spoil, message):
    spoil(split_folders)
    with pytest.raises(UserError, match=message) as caught:
        read_all(split_folders, tags=False)
    assert "\n" not in str(caught.value)
