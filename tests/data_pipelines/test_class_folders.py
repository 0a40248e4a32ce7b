"""The source of class folders: which photos it gives with which tags, and that each mistake is named."""

import sys
import unicodedata

import numpy as np
import pytest
from PIL import Image

from data_pipelines.class_folders import ClassFolderSource
from data_pipelines.class_listing import list_class_folders
from data_pipelines.sources import SourceConfig, open_source
from larvseg_jax.errors import UserError
from larvseg_jax.vocabulary import Vocabulary

LABELS = Vocabulary(("background", "zebra", "traffic light", "lion", "käfer"), (), ()).label_set()
# In the order in which they must be numbered: folders by name, then files by name.
FILES = ["lion/B.JPEG", "lion/a.png", "traffic light/a.webp", "zebra/10.tiff", "zebra/2.bmp", "zebra/é.png"]


def photo(i):
    return np.random.default_rng(i).integers(0, 256, (9, 10 + i, 3), dtype=np.uint8)


@pytest.fixture
def folder(tmp_path):
    root = tmp_path / "tagged"
    for i, name in sorted(enumerate(FILES), key=lambda pair: pair[1][::-1]):  # written in another order
        file = root / name
        file.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(photo(i)).save(file, **({"lossless": True} if file.suffix == ".webp" else {}))
    for left in (".DS_Store", "Thumbs.db", "._a.png", ".hidden.jpg"):
        (root / "lion" / left).write_bytes(b"not ours")
        (root / left).write_bytes(b"not ours")
    (root / "__MACOSX").mkdir()
    (root / ".git").mkdir()
    return root


def read_all(folder):
    source = ClassFolderSource(folder, "train", LABELS)
    return [source[i] for i in range(len(source))]


def test_every_photo_has_the_class_of_its_folder(folder):
    source = ClassFolderSource(folder, "train", LABELS)
    assert len(source) == 6
    examples = [source[i] for i in range(6)]
    assert [e["id"] for e in examples] == FILES
    assert [e["tags"].tolist() for e in examples] == [[3], [3], [2], [1], [1], [1]]
    for i, example in enumerate(examples):
        assert set(example) == {"id", "image", "tags"}
        assert example["tags"].dtype == np.int32
        if i:  # the first is a JPEG
            np.testing.assert_array_equal(example["image"], photo(i))
    assert source[-1]["id"] == "zebra/é.png"
    assert source[np.int64(3)]["id"] == "zebra/10.tiff"
    with pytest.raises(IndexError):
        source[6]


def test_photos_are_counted_per_column(folder):
    assert ClassFolderSource(folder, "train", LABELS).photos_per_column.tolist() == [0, 3, 1, 2, 0]


def test_a_decomposed_folder_name_is_the_same_class(folder):
    decomposed = unicodedata.normalize("NFD", "käfer")
    (folder / decomposed).mkdir()
    Image.fromarray(photo(0)).save(folder / decomposed / "a.png")
    source = ClassFolderSource(folder, "train", LABELS)
    assert (source[0]["id"], source[0]["tags"].tolist()) == (f"{decomposed}/a.png", [4])
    np.testing.assert_array_equal(source[0]["image"], photo(0))


def test_linked_class_folders_are_followed(folder, tmp_path):
    (folder / "lion").rename(tmp_path / "elsewhere")
    (folder / "lion").symlink_to(tmp_path / "elsewhere", target_is_directory=True)
    assert ClassFolderSource(folder, "train", LABELS)[1]["id"] == "lion/a.png"


def test_the_index_of_many_files_is_compact(tmp_path):
    (tmp_path / "zebra").mkdir()
    for i in range(2000):
        (tmp_path / "zebra" / f"{i:08}.jpg").touch()
    listing = list_class_folders(tmp_path)
    held = sum(sys.getsizeof(x) for x in vars(listing).values())
    assert len(listing) == 2000
    assert held < 2000 * (12 + 8) + 4096  # the letters of a name and one number; a list of str takes 69 + 8


def where(**changes):
    return SourceConfig(**(dict(tfds="", folder="", class_folders="tagged", split="train") | changes))


def test_open_source_opens_class_folders(folder):
    source = open_source(where(), folder.parent, LABELS, "tags")
    assert [source[i]["id"] for i in range(len(source))] == FILES
    with pytest.raises(UserError, match=r"tagged: class folders have no masks: .*tags_from='image'"):
        open_source(where(), folder.parent, LABELS, "masks")
    with pytest.raises(UserError, match=r"split 'val': class folders have no splits: leave `split` at 'train'"):
        open_source(where(split="val"), folder.parent, LABELS, "tags")


def empty(folder):
    for file in (folder / "lion").iterdir():
        file.unlink()


MISTAKES = {
    "no folder": (lambda f: f.rename(f.parent / "t"), r"tagged does not exist: make it, with a folder of pictures per"),
    "slip": (
        lambda f: (f / "zebra").rename(f / "zebar"),
        r"tagged/zebar: 'zebar' is no class of the stream, did you mean zebra\?: rename or remove the folder, or add",
    ),
    "other class": (lambda f: (f / "zebra").rename(f / "qqq"), r"'qqq' is no class of the stream, it has 5 classes"),
    "no class folders": (
        lambda f: [(f / name).rename(f.parent / name) for name in ("lion", "zebra", "traffic light")],
        r"tagged has no class folders: make one per class",
    ),
    "photo beside": (
        lambda f: (f / "lion" / "a.png").rename(f / "a.png"),
        r"tagged/a\.png lies beside the class folders: move it into one, or away",
    ),
    "text": (
        lambda f: (f / "lion" / "list.csv").touch(),
        r"tagged/lion/list\.csv is no picture \(jpg, jpeg, png, webp",
    ),
    "nested": (lambda f: (f / "lion" / "more").mkdir(), r"tagged/lion/more is a folder: pictures must lie in .*/lion"),
    "empty": (empty, r"tagged/lion holds no pictures"),
    "broken": (lambda f: (f / "lion" / "a.png").write_bytes(b"x"), r"tagged/lion/a\.png: no readable picture"),
    "link": (lambda f: (f / "lion" / "b.jpg").symlink_to(f / "none"), r"lion/b\.jpg is a link that leads nowhere"),
    "folder": (lambda f: (f / "lion" / "b.jpg").mkdir(), r"tagged/lion/b\.jpg: is a folder and no file"),
}


@pytest.mark.parametrize(("spoil", "message"), MISTAKES.values(), ids=MISTAKES)
def test_mistakes_are_named(folder, spoil, message):
    spoil(folder)
    with pytest.raises(UserError, match=message) as caught:
        read_all(folder)
    assert "\n" not in str(caught.value)
