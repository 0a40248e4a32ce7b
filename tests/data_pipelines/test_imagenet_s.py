"""ImageNet-S from small copies of its masks and of ImageNet-1k: folders and archives, and all that may be wrong."""

import functools
import io
import json
import tarfile
import zipfile

import numpy as np
import pytest
import tensorflow_datasets as tfds
from PIL import Image

from data_pipelines.builders.imagenet_s import ImageNetS
from data_pipelines.builders.preparation import prepare
from data_pipelines.decode import decode_mask
from data_pipelines.tfds_source import TfdsSource
from larvseg_jax.errors import UserError
from larvseg_jax.vocabulary import Vocabulary
from larvseg_jax.vocabulary.class_lists import class_list
from tests.data_pipelines.mask_trees import HEIGHT, grey, jpeg, png_photo, saved, stripes, write

WNIDS = class_list("imagenet_s_919").ids
TENCH, SUNGLASS, TISSUE = "n01440764", "n04355933", "n15075141"  # values 1, ... and 919
SUNGLASSES = "n04356056"  # of ImageNet-1k, counted with SUNGLASS
PAPER_TOWEL = "n03887697"  # with TISSUE


def rgb(values, blue=0):
    """A mask as the authors store it: red + 256 * green."""
    ids = stripes(values, np.int32)
    return saved(Image.fromarray(np.stack([ids % 256, ids // 256, ids * 0 + blue], -1).astype(np.uint8)), "PNG")


# What each mask shows of its stripes; every other synset has a picture of itself and what is other.
SHOWN = {TENCH: [0, 1, 1000, 919], TISSUE: [919, 919, 0, 256]}
PLACE = {wnid: i for i, wnid in enumerate(WNIDS)}


def values_of(wnid):
    return SHOWN.get(wnid, [0, PLACE[wnid] + 1])


def name_of(split, wnid):
    return f"ILSVRC2012_val_{PLACE[wnid]:08}" if split == "val" else f"{wnid}_{PLACE[wnid]}"


@functools.cache
def picture_of(wnid):
    return jpeg(3 * len(values_of(wnid)), seed=PLACE[wnid])


@functools.cache
def mask_of(wnid):
    return rgb(values_of(wnid))


def masks(*splits):
    folder = {"val": "validation-segmentation", "train": "train-semi-segmentation"}
    return {
        f"ImageNetS919/{folder[split]}/{wnid}/{name_of(split, wnid)}.png": mask_of(wnid)
        for split in splits
        for wnid in WNIDS
    }


def photos(split, form):
    """Pictures of a split, in a folder per synset, per synset of ImageNet-1k, or in none."""
    original = {SUNGLASS: SUNGLASSES, TISSUE: PAPER_TOWEL}
    folder = {"flat": lambda w: "", "imagenet_s": lambda w: f"{w}/", "1k": lambda w: f"{original.get(w, w)}/"}[form]
    return {f"{folder(w)}{name_of(split, w)}.JPEG": picture_of(w) for w in WNIDS}


def below(folder, files):
    return {f"{folder}/{name}": data for name, data in files.items()}


def zipped(files):
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w") as archive:
        for name, data in files.items():
            archive.writestr(name, data)
        archive.writestr("__MACOSX/ImageNetS919/validation-segmentation/n01440764/._x.png", b"notes")
    return file.getvalue()


def tarred(files):
    file = io.BytesIO()
    with tarfile.open(fileobj=file, mode="w") as archive:
        for name, data in files.items():
            info = tarfile.TarInfo(name)
            info.size = len(data)
            archive.addfile(info, io.BytesIO(data))
    return file.getvalue()


ARCHIVE = "ImageNetS919-5f7f58ae1003d21da9409a8576bf7680.zip"
LAYOUTS = {
    "zip, folders of ImageNet-1k": (
        ["train", "val"],
        f"masks in {ARCHIVE}, pictures of train in train, pictures of val in val",
    ),
    "tar, archive of ImageNet-1k": (
        ["val"],
        "masks in ImageNetS919.tar, pictures of val in ILSVRC2012_img_val.tar",
    ),
    "as the authors' scripts leave them": (
        ["train", "val"],
        "masks in ImageNetS919, pictures of train in train-semi, pictures of val in validation",
    ),
    "masks of training without pictures": (["val"], "masks in ImageNetS919, pictures of val in val"),
}


def tree(layout):
    """The files of a download in each of these layouts."""
    if layout.startswith("zip"):
        pictures = below("val", photos("val", "1k")) | below("train", photos("train", "1k"))
        return {ARCHIVE: zipped(masks("val", "train"))} | pictures
    if layout.startswith("tar"):
        return {"ImageNetS919.tar": tarred(masks("val")), "ILSVRC2012_img_val.tar": tarred(photos("val", "flat"))}
    if layout.startswith("as the authors"):
        pictures = below("validation", photos("val", "imagenet_s")) | below("train-semi", photos("train", "imagenet_s"))
        return masks("val", "train") | below("ImageNetS919", pictures)
    return masks("val", "train") | below("ILSVRC/Data/CLS-LOC/val", photos("val", "flat"))


def stored(folder, split):
    """Picture -> (its bytes, values of its stripes in the record, tags)."""
    skip = {name: tfds.decode.SkipDecoding() for name in ("image", "mask")}
    records = {}
    for record in tfds.builder_from_directory(str(folder)).as_data_source(split, decoders=skip):
        mask = decode_mask(record["mask"], "mask")
        assert mask.shape[0] == HEIGHT
        records[record["id"].decode()] = record["image"], mask[0, ::3].tolist(), list(record["tags"])
    return records


@pytest.mark.parametrize(
    "kind", [pytest.param(kind, marks=[pytest.mark.slow] * (i in (0, 2))) for i, kind in enumerate(LAYOUTS)]
)
def test_every_value_is_what_was_drawn(kind, tmp_path):
    splits, layout = LAYOUTS[kind]
    folder = prepare(ImageNetS, write(tmp_path / "in", tree(kind)), tmp_path / "out")
    metadata = json.loads((folder / "metadata.json").read_text())
    assert metadata["layout"] == layout
    assert list(metadata["photos_per_class"]) == splits
    # Class ids: 0 to 918 by synset, 919 what is none of them, 65535 what is ignored.
    meaning = {0: 919, 1000: 65535} | {value: value - 1 for value in range(1, 920)}
    for split in splits:
        records = stored(folder, split)
        assert list(records) == [name_of(split, wnid) for wnid in WNIDS]
        for wnid in WNIDS:
            image, row, tags = records[name_of(split, wnid)]
            assert image == picture_of(wnid)
            assert row == [meaning[value] for value in values_of(wnid)]
            assert tags == sorted({*row} - {65535})


def test_other_is_a_class_of_the_data_and_ignored_by_who_does_not_know_it(tmp_path):
    folder = prepare(ImageNetS, write(tmp_path / "in", tree("tar")), tmp_path / "out")
    names = class_list("imagenet_s_919").stored
    assert names == (*WNIDS, "other")
    for known, expected in ((WNIDS, [-1, 0, -1, 918]), (names, [919, 0, -1, 918])):
        source = TfdsSource(folder, "val", Vocabulary(known).label_set(), masks=True, tags=False)
        assert len(source) == 919
        assert source[0]["label"][0, ::3].tolist() == expected


def without(files, *gone):
    return {name: data for name, data in files.items() if not any(part in name for part in gone)}


TENCH_MASK = f"ImageNetS919/validation-segmentation/{TENCH}/ILSVRC2012_val_00000000.png"


def flat():
    return below("val", photos("val", "flat"))


def cut(archive):
    """Within the last picture."""
    return archive[: archive.rindex(b"ILSVRC2012_val_00000918") + 600]


def with_mask(mask):
    return masks("val") | flat() | {TENCH_MASK: mask}


def with_mask_in(wnid, picture):
    return masks("val") | flat() | {f"ImageNetS919/validation-segmentation/{wnid}/{picture}.png": rgb([1])}


ERRORS = {  # files, made when they are needed; what is said
    "no masks": (flat, r"no masks of ImageNet-S, neither .* nor the archive ImageNetS919\*\.zip: give"),
    "no pictures": (
        lambda: masks("val"),
        r"no picture of ImageNet-1k for any of them \(looked in .*val.*\): put or link the folder",
    ),
    "a picture is missing": (
        lambda: masks("val") | without(flat(), "00000007", "00000009"),
        rf"in/val: 2 of 919 pictures are missing, the first is {WNIDS[7]}/ILSVRC2012_val_00000007\.JPEG",
    ),
    "a synset is missing": (
        lambda: without(masks("val"), TENCH) | flat(),
        r"validation-segmentation: masks of 918 synsets, but 1 of its 919 have none \(n01440764\): unpack",
    ),
    "a synset of ImageNet-1k that was merged": (
        lambda: with_mask_in(SUNGLASSES, "ILSVRC2012_val_00000001"),
        rf"masks of 920 synsets, but 1 are none of these \({SUNGLASSES}\)",
    ),
    "two masks of a picture": (
        lambda: with_mask_in(TISSUE, "ILSVRC2012_val_00000000"),
        r"2 masks are of the picture ILSVRC2012_val_00000000: leave",
    ),
    "a value between the synsets and what is ignored": (
        lambda: with_mask(rgb([0, 1, 1000, 920])),
        r"val_00000000\.png: value 920 at row 0, column 9 is none of this encoding \(0\.\.919, 1000\)",
    ),
    "a value beyond": (lambda: with_mask(rgb([1001, 1, 0, 0])), r"value 1001 at row 0, column 0"),
    "blue": (lambda: with_mask(rgb([0, 1, 0, 0], blue=3)), r"png: blue is 3 at row 0, column 0.*: take it"),
    "grey": (lambda: with_mask(grey([0, 1, 0, 0])), r"png: .* channels RGB, this one has L: take it from"),
    "another size": (
        lambda: with_mask(rgb([0, 1, 0])),
        r"val/ILSVRC2012_val_00000000\.JPEG: its mask has 9x6 pixels, the picture 12x6: replace one",
    ),
    "an archive of pictures cut short": (
        lambda: masks("val") | {"ILSVRC2012_img_val.tar": cut(tarred(photos("val", "flat")))},
        r"ILSVRC2012_img_val\.tar: no archive that can be read .*: download it again, or unpack it",
    ),
    "an archive of masks cut short": (
        lambda: {"ImageNetS919.zip": zipped(masks("val"))[:-40]} | flat(),
        r"ImageNetS919\.zip: no archive that can be read .*: download it again, or unpack it",
    ),
}


@pytest.mark.parametrize("case", ERRORS)
def test_what_does_not_fit_stops_with_file_value_and_remedy(case, tmp_path):
    files, message = ERRORS[case]
    root = write(tmp_path / "in", files())
    with pytest.raises(UserError, match=message):
        prepare(ImageNetS, root, tmp_path / "out")


def test_damaged_files_are_left_out_and_listed(tmp_path):
    files = flat() | {
        "val/ILSVRC2012_val_00000000.JPEG": png_photo(12)[:30],
        "ImageNetS919.tar": tarred(
            masks("val") | {TENCH_MASK.replace(TENCH, WNIDS[1]).replace("0.png", "1.png"): b"no PNG"}
        ),
    }
    folder = prepare(ImageNetS, write(tmp_path / "in", files), tmp_path / "out")
    metadata = json.loads((folder / "metadata.json").read_text())
    left_out = [photo["file"].rpartition("/")[2] for photo in metadata["unreadable"]["val"]]
    assert left_out == ["ILSVRC2012_val_00000000.JPEG", "ILSVRC2012_val_00000001.png"]
    assert list(stored(folder, "val")) == [name_of("val", wnid) for wnid in WNIDS[2:]]
