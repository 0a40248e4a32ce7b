"""The doctor on people's own folders: a line for everything that would be learnt wrong, with file and remedy."""

import io
import re

import numpy as np
import pytest
from PIL import Image

from configs import own_data
from larvseg_jax.config import from_config
from larvseg_jax.doctor import data, set_report

SIZE = (24, 32)
NAMES = "background\ngrass\nwater\n"


def mask():
    """A third of the rows is class 0, a third 1, a third 2."""
    return np.repeat(np.arange(3, dtype=np.uint8), 8)[:, None].repeat(SIZE[1], axis=1)


def photo(seed=0):
    return np.random.default_rng(seed).integers(0, 256, (*SIZE, 3), dtype=np.uint8)


def saved(pixels, file_format="PNG", **options):
    file = io.BytesIO()
    Image.fromarray(pixels).save(file, file_format, **options)
    return file.getvalue()


@pytest.fixture
def folder(tmp_path):
    (tmp_path / "tagged" / "zebra").mkdir(parents=True)
    (tmp_path / "tagged" / "zebra" / "z.png").write_bytes(saved(photo()))
    for split in ("train", "val"):
        for part in ("images", "masks"):
            (tmp_path / part / split).mkdir(parents=True)
        for i in range(3):
            put(tmp_path, split, i, saved(photo(i)), saved(mask()))
    (tmp_path / "classes.txt").write_text(NAMES)
    return tmp_path


def put(folder, split, number, image=None, mask_file=None):
    if image is not None:
        (folder / "images" / split / f"p{number}.png").write_bytes(image)
    if mask_file is not None:
        (folder / "masks" / split / f"p{number}.png").write_bytes(mask_file)


def lines(folder):
    """The doctor's lines on the data as printed ("level where: text"), with their cases; in the order of the levels."""
    run = from_config(own_data.get_config(str(folder)))
    reports = set_report.inspect(run, None)
    sections = (data.found_section(run, reports), data.unreadable_section(reports), data.labels_section(reports))
    findings = [finding for section in sections for finding in section.findings]
    shown = [f"{f.level} {f.where}: {' '.join((f.text, *f.details))}" for f in findings]
    unusual = [line for line in shown if not line.startswith("ok ")]
    # In this layout nobody tags base classes, and no mask shows novel ones (docs/own_data.md).
    return [line for line in unusual if not re.search(r"of its \d+ classes: ", line)]


def test_a_clean_folder_has_nothing_to_say(folder):
    assert lines(folder) == []
    for left in ("images/train/.ipynb_checkpoints", "masks/train/@eaDir", "tagged/@eaDir", "tagged/zebra/__MACOSX"):
        (folder / left).mkdir()
    (folder / "tagged" / "Thumbs.db").write_bytes(b"")
    assert lines(folder) == []


def all_masks(folder, mask_file):
    for split in ("train", "val"):
        for i in range(3):
            put(folder, split, i, None, mask_file)


def binary(folder):
    all_masks(folder, saved(np.where(mask() == 1, 255, 0).astype(np.uint8)))
    (folder / "classes.txt").write_text("background\nlesion\n")
    return "error streams.masks", "value 255 is ignored", "'lesion'", "'255: lesion'"


def steps(folder):
    all_masks(folder, saved(np.array([0, 127, 255], np.uint8)[mask()]))
    return "error streams.masks", "value 127 is no class", "'127: grass', '255: water'"


def jpegs(folder):
    put(folder, "train", 1, None, saved(mask(), "JPEG"))
    return "error streams.masks", "masks smeared by JPEG or resizing: 1 among all 3", "p1.png: is a JPEG"


def smeared(folder):
    slanted = np.add.outer(np.arange(SIZE[0]), np.arange(SIZE[1])) // 13 % 3
    lossy = np.asarray(Image.open(io.BytesIO(saved(np.array([0, 120, 2], np.uint8)[slanted], "JPEG"))))
    put(folder, "train", 1, None, saved(lossy))
    return "error streams.masks", "masks smeared by JPEG or resizing", "p1.png", "values that are no class, strewn over"


def coloured(folder):
    all_masks(folder, saved(np.array([[0, 0, 0], [9, 99, 9], [1, 2, 3]], np.uint8)[mask()]))
    return "error streams.masks", "coloured masks: 3", "classes.json", "p0.png", "RGB"


def numbered(folder):
    (folder / "classes.txt").write_text("0: background\n1: grass\n2: water\n")
    return "warning classes.txt", "'0: background' is read as value 0, class 'background'"


def from_one(folder):
    (folder / "classes.txt").write_text("1: grass\n2: water\n")
    return "error streams.masks", "mask values that are no class: 3", "value 0 at row 0, column 0 is none of the 2"


def colours_listed(folder):
    (folder / "classes.txt").write_text("background,0,0,0\ngrass,9,99,9\nwater,1,2,3\n")
    return "warning classes.txt", "'background,0,0,0' is read as colour [0, 0, 0], class 'background'"


def unlabeled(folder):
    (folder / "classes.txt").write_text("unlabeled\ngrass\nwater\n")
    return "warning classes.txt", "'unlabeled' is ignored: is it meant so?"


def labelme(folder):
    (folder / "classes.txt").write_text("_background_\ngrass\nwater\n")
    return "warning classes.txt", "'_background_' is the background: is it meant so?"


def few_bits(folder):
    put(folder, "train", 0, saved(photo()[..., 0].astype(np.uint16) * 5))
    return (
        "warning streams.masks",
        "16 bits that use fewer: 1",
        "p0.png: 16 bits, its largest value is 1,2",
        "read as 12",
    )


def few_bits_without_mask(folder):
    (folder / "tagged" / "zebra" / "y.png").write_bytes(saved(photo()[..., 0].astype(np.uint16) * 50))
    return "warning streams.tagged", "16 bits that use fewer: 1", "y.png: 16 bits", "read as 14 bits"


def turned(folder):
    exif = Image.Exif()
    exif[0x112] = 6
    put(folder, "train", 2, saved(photo(), exif=exif))
    return (
        "warning streams.masks",
        "EXIF tag turns: 1",
        "p2.png: EXIF orientation 6: the mask has the size of the photo as",
    )


def half_turned(folder):
    exif = Image.Exif()
    exif[0x112] = 3
    put(folder, "train", 2, saved(photo(), exif=exif))
    return "warning streams.masks", "EXIF tag turns: 1", "p2.png: EXIF orientation 3", "its size does not tell"


KINDS = (
    binary, steps, jpegs, smeared, coloured, numbered, from_one, colours_listed, unlabeled, labelme, few_bits,
    few_bits_without_mask, turned, half_turned,
)  # fmt: skip


@pytest.mark.parametrize("damage", KINDS, ids=lambda damage: damage.__name__)
def test_every_kind_has_its_line(folder, damage):
    begin, *words = damage(folder)
    found = lines(folder)
    assert [line for line in found if line.startswith(begin) and all(word in line for word in words)], found
    # Nothing else is said of the same photos.
    wheres = ("streams.masks", "streams.tags_of_masks", "evals.val", "streams.tagged", "classes.txt")
    assert len(found) <= len(wheres), found
    assert len({line.split(": ")[0] for line in found}) == len(found), found


def test_a_class_that_a_config_learns_in_spite_of_its_name_is_named(folder):
    (folder / "classes.txt").write_text("void\ngrass\nwater\n")
    config = own_data.get_config(f"{folder},base=void")
    run = from_config(config)
    (found,) = [f for f in data.found_section(run, set_report.inspect(run, None)).findings if f.where == "classes.txt"]
    assert (found.level, found.text.endswith("'void' is learnt like any class: is it meant so?")) == ("warning", True)
