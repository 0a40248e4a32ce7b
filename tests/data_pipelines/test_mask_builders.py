"""Data sets with masks, prepared from small copies of their downloads: every class is what was drawn."""

import json

import numpy as np
import pytest
import tensorflow_datasets as tfds

from data_pipelines.builders.ade20k import Ade20k
from data_pipelines.builders.ade20k_full import Ade20kFull
from data_pipelines.builders.cityscapes import Cityscapes
from data_pipelines.builders.coco_stuff import CocoStuff
from data_pipelines.builders.pascal_context import PascalContext59, PascalContext459
from data_pipelines.builders.pascal_voc import PascalVoc
from data_pipelines.decode import decode_mask
from tests.data_pipelines.mask_trees import grey, jpeg, mat, object_ids, palette, png_photo, prepared, tiff, write

# (stored value, name of the class it stands for) of every stripe, from the authors' label lists.
COCO = [(0, "person"), (12, "stop sign"), (89, "toothbrush"), (91, "banner"), (181, "wood"), (255, None)]
COCO_TRAIN_IDS = [0, 11, 79, 80, 170, 255]
ADE = [(0, None), (1, "wall"), (2, "building"), (13, "person"), (150, "flag")]
ADE_FULL_OBJECTS = [
    (0, None),
    (1, None),
    (2978, "wall"),
    (312, "building"),
    (350, "cabinet"),
    (1831, "person"),
    (3148, "adding-machine"),
]
ADE_FULL_TRAIN_IDS = [65535, 65535, 0, 1, 10, 11, 846]
VOC = [(0, None), (1, "aeroplane"), (15, "person"), (20, "tvmonitor"), (255, None)]
CONTEXT_LABEL_MAP = [(0, None), (2, "aeroplane"), (284, "person"), (458, "wood"), (1, "accordion"), (459, "wool")]
CITYSCAPES = [(7, "road"), (8, "sidewalk"), (26, "car"), (33, "bicycle"), (0, None), (4, None), (18, None), (29, None)]
CITYSCAPES_TRAIN_IDS = [0, 1, 13, 18, 255, 255, 255, 255]


def drawn(cells):
    return [value for value, _ in cells]


def names(cells):
    return [name for _, name in cells]


def photo_of(cells, seed=0):
    return jpeg(3 * len(cells), seed=seed)


def coco(photos, masks, suffix, values):
    photo = photo_of(COCO)
    return {
        f"{photos}train2017/000000000009.jpg": photo,
        f"{masks}train2017/000000000009{suffix}": grey(values),
        f"{photos}val2017/000000000139.jpg": photo,
        f"{masks}val2017/000000000139{suffix}": grey(values[::-1]),
    }


COCO_TREES = {
    "official, all at the root": coco("", "stuffthingmaps_trainval2017/", ".png", drawn(COCO)),
    "official, in images and annotations": coco("images/", "annotations/", ".png", drawn(COCO)),
    "converted among the official ones": coco("images/", "annotations/", ".png", [3] * 6)
    | coco("images/", "annotations/", "_labelTrainIds.png", COCO_TRAIN_IDS),
    "converted, in a folder below": {
        f"coco_stuff164k/{name}": data
        for name, data in coco("images/", "annotations/", "_labelTrainIds.png", COCO_TRAIN_IDS).items()
    },
}


@pytest.mark.parametrize("layout", COCO_TREES)
def test_coco_stuff(layout, tmp_path):
    root = write(tmp_path / "in", COCO_TREES[layout])
    train = prepared(CocoStuff, root, tmp_path / "out", "train")
    val = prepared(CocoStuff, root, tmp_path / "out", "val")
    assert list(train) == ["000000000009"]
    assert list(val) == ["000000000139"]
    assert train["000000000009"].stripes == names(COCO)
    assert val["000000000139"].stripes == names(COCO)[::-1]
    assert train["000000000009"].tags == ["person", "stop sign", "toothbrush", "banner", "wood"]
    assert train["000000000009"].image == photo_of(COCO)


def test_ade20k(tmp_path):
    photo = photo_of(ADE)
    root = write(
        tmp_path / "in",
        {
            "ADEChallengeData2016/images/training/ADE_train_00000002.jpg": photo,
            "ADEChallengeData2016/annotations/training/ADE_train_00000002.png": grey(drawn(ADE)),
            "ADEChallengeData2016/images/training/ADE_train_00000001.jpg": photo,
            "ADEChallengeData2016/annotations/training/ADE_train_00000001.png": grey([0] * 5),
            "ADEChallengeData2016/images/validation/ADE_val_00000001.jpg": photo,
            "ADEChallengeData2016/annotations/validation/ADE_val_00000001.png": grey(drawn(ADE)),
            "ADEChallengeData2016/sceneCategories.txt": "ADE_train_00000001 airport_terminal\n",
        },
    )
    train = prepared(Ade20k, root, tmp_path / "out", "train")
    assert list(train) == ["ADE_train_00000001", "ADE_train_00000002"]  # by name
    assert train["ADE_train_00000002"].stripes == names(ADE)
    assert train["ADE_train_00000002"].tags == ["wall", "building", "person", "flag"]
    assert train["ADE_train_00000002"].image == photo
    assert train["ADE_train_00000001"].tags == []  # nothing is labelled
    metadata = json.loads((tmp_path / "out/ade20k_150/1.0.0/metadata.json").read_text())
    assert metadata["layout"] == "ADEChallengeData2016"
    assert metadata["expected"] == {"train": 20210, "val": 2000}
    assert metadata["photos_per_class"]["train"][:13] == [1, 1, *[0] * 10, 1]


def ade_full_release():
    """With the other files that lie around a photo: parts, instances, polygons."""
    files = {}
    for split, photo in (("training", "ADE_train_00016869"), ("validation", "ADE_val_00000001")):
        folder = f"ADE20K_2021_17_01/images/ADE/{split}/urban/street"
        files |= {
            f"{folder}/{photo}.jpg": photo_of(ADE_FULL_OBJECTS),
            f"{folder}/{photo}_seg.png": object_ids(drawn(ADE_FULL_OBJECTS)),
            f"{folder}/{photo}_parts_1.png": object_ids([9] * 7),
            f"{folder}/{photo}.json": "{}",
            f"{folder}/{photo}/instance_000_{photo}.png": grey([255] * 7),
        }
    return files


def ade_full_tiff(folders):
    photo, mask = photo_of(ADE_FULL_OBJECTS), tiff(ADE_FULL_TRAIN_IDS)
    photos = (("train", "ADE_train_00016869"), ("val", "ADE_val_00000001"))
    return {
        name: data
        for split, stem in photos
        for name, data in zip((f"{f}/{stem}{e}" for f, e in folders(split)), (photo, mask), strict=True)
    }


LONG = {"train": "training", "val": "validation"}
ADE_FULL_TREES = {
    "release": ade_full_release(),
    "MaskFormer's beside the release": {
        name: object_ids([2978] * 7) if name.endswith("_seg.png") else data for name, data in ade_full_release().items()
    }
    | {
        f"ADE20K_2021_17_01/{name}": data
        for name, data in ade_full_tiff(
            lambda s: [(f"images_detectron2/{LONG[s]}", ".jpg"), (f"annotations_detectron2/{LONG[s]}", ".tif")]
        ).items()
    },
    "the authors' folders": ade_full_tiff(lambda s: [(f"{s}/image", ".jpg"), (f"{s}/label", ".tif")]),
    "the authors' README": ade_full_tiff(lambda s: [(f"images/{LONG[s]}", ".jpg"), (f"annotations/{LONG[s]}", ".tif")]),
}


@pytest.mark.parametrize("layout", ADE_FULL_TREES)
def test_ade20k_full(layout, tmp_path):
    root = write(tmp_path / "in", ADE_FULL_TREES[layout])
    for split, photo in (("train", "ADE_train_00016869"), ("val", "ADE_val_00000001")):
        records = prepared(Ade20kFull, root, tmp_path / "out", split)
        assert list(records) == [photo]
        assert records[photo].stripes == names(ADE_FULL_OBJECTS)
        assert records[photo].tags == ["wall", "building", "cabinet", "person", "adding-machine"]
        assert records[photo].image == photo_of(ADE_FULL_OBJECTS)
    stored = tfds.builder_from_directory(str(tmp_path / "out/ade20k_full_847/1.0.0"))
    (record,) = stored.as_data_source("val", decoders={"mask": tfds.decode.SkipDecoding()})
    assert list(record["tags"]) == [0, 1, 10, 11, 846]
    assert np.unique(decode_mask(record["mask"], "mask")).tolist() == [0, 1, 10, 11, 846, 65535]


def test_pascal_voc(tmp_path):
    sbd = [(0, None), (8, "cat"), (8, "cat"), (20, "tvmonitor"), (0, None)]
    files = {
        f"VOCdevkit/VOC2012/JPEGImages/{name}.jpg": photo_of(VOC)
        for name in ("2007_000032", "2007_000033", "2008_000008", "2012_000001")  # the last has no mask
    }
    root = write(
        tmp_path / "in",
        files
        | {
            "VOCdevkit/VOC2012/SegmentationClass/2007_000032.png": palette(drawn(VOC)),
            "VOCdevkit/VOC2012/SegmentationClass/2007_000033.png": palette(drawn(VOC)[::-1]),
            "VOCdevkit/VOC2012/SegmentationClassAug/2007_000032.png": grey([5] * 5),
            "VOCdevkit/VOC2012/SegmentationClassAug/2008_000008.png": grey(drawn(sbd)),
            "VOCdevkit/VOC2012/ImageSets/Segmentation/train.txt": "2007_000032\n",
            "VOCdevkit/VOC2012/ImageSets/Segmentation/trainaug.txt": "2008_000008\n2007_000032\n",
            "VOCdevkit/VOC2012/ImageSets/Segmentation/val.txt": "2007_000033\r\n\r\n",
        },
    )
    splits = {split: prepared(PascalVoc, root, tmp_path / "out", split) for split in ("train", "trainaug", "val")}
    assert {split: list(records) for split, records in splits.items()} == {
        "train": ["2007_000032"],
        "trainaug": ["2007_000032", "2008_000008"],
        "val": ["2007_000033"],
    }
    assert splits["train"]["2007_000032"].stripes == names(VOC)
    assert splits["train"]["2007_000032"].tags == ["aeroplane", "person", "tvmonitor"]
    assert splits["train"]["2007_000032"].image == photo_of(VOC)
    assert splits["val"]["2007_000033"].stripes == names(VOC)[::-1]
    assert splits["trainaug"]["2007_000032"].stripes == names(VOC)  # the official mask before the other
    assert splits["trainaug"]["2008_000008"].stripes == names(sbd)


def context(masks, suffix, mask, lists):
    files = {f"VOCdevkit/VOC2010/JPEGImages/2008_00000{i}.jpg": photo_of(CONTEXT_LABEL_MAP) for i in (2, 3, 9)}
    for split, photo in (("train", "2008_000002"), ("val", "2008_000003")):
        files[f"VOCdevkit/VOC2010/{masks.format(split)}/{photo}{suffix}"] = mask
        files[f"VOCdevkit/VOC2010/{lists.format(split)}"] = f"{photo}\n"
    return files


CONTEXT_59 = ["aeroplane", "person", "wood"]
CONTEXT_TREES = {
    "59, mmsegmentation's": (
        PascalContext59,
        context(
            "SegmentationClassContext",
            ".png",
            grey([0, 1, 37, 59, 0, 0]),
            "ImageSets/SegmentationContext/{}.txt",
        ),
        [None, *CONTEXT_59, None, None],
    ),
    "59, release": (
        PascalContext59,
        context("trainval", ".mat", mat(drawn(CONTEXT_LABEL_MAP)), "ImageSets/Main/{}.txt"),
        [None, *CONTEXT_59, None, None],
    ),
    "459, release": (
        PascalContext459,
        context("trainval", ".mat", mat(drawn(CONTEXT_LABEL_MAP)), "ImageSets/SegmentationContext/{}.txt"),
        names(CONTEXT_LABEL_MAP),
    ),
    "459, TIFF by list": (
        PascalContext459,
        context(
            "annotations_detectron2/pc459_{}",
            ".tif",
            tiff([65535, 1, 283, 457, 0, 458]),
            "pascalcontext_{}.txt",
        ),
        names(CONTEXT_LABEL_MAP),
    ),
    "459, TIFF by folder": (
        PascalContext459,
        {
            f"{folder}/{split}/{photo}": data
            for split, stem in (("training", "2008_000002"), ("validation", "2008_000003"))
            for folder, photo, data in (
                ("images", f"{stem}.jpg", photo_of(CONTEXT_LABEL_MAP)),
                ("annotations_ctx459", f"{stem}.tif", tiff([65535, 1, 283, 457, 0, 458])),
            )
        },
        names(CONTEXT_LABEL_MAP),
    ),
}


@pytest.mark.parametrize("layout", CONTEXT_TREES)
def test_pascal_context(layout, tmp_path):
    builder, files, expected = CONTEXT_TREES[layout]
    root = write(tmp_path / "in", files)
    for split, photo in (("train", "2008_000002"), ("val", "2008_000003")):
        records = prepared(builder, root, tmp_path / "out", split)
        assert list(records) == [photo]
        assert records[photo].stripes == expected
        assert records[photo].tags == sorted(set(expected) - {None})  # both lists are in alphabetical order
        assert records[photo].image == photo_of(CONTEXT_LABEL_MAP)


@pytest.mark.parametrize("train_ids", [False, True])
def test_cityscapes(train_ids, tmp_path):
    photo = png_photo(3 * len(CITYSCAPES))
    files = {}
    for split, city, name in (
        ("train", "aachen", "aachen_000000_000019"),
        ("val", "munster", "munster_000173_000019"),
    ):
        files |= {
            f"leftImg8bit/{split}/{city}/{name}_leftImg8bit.png": photo,
            f"gtFine/{split}/{city}/{name}_gtFine_labelIds.png": grey([11] * 8 if train_ids else drawn(CITYSCAPES)),
            f"gtFine/{split}/{city}/{name}_gtFine_color.png": photo,
            f"gtFine/{split}/{city}/{name}_gtFine_polygons.json": "{}",
        }
        if train_ids:
            files[f"gtFine/{split}/{city}/{name}_gtFine_labelTrainIds.png"] = grey(CITYSCAPES_TRAIN_IDS)
    root = write(tmp_path / "in", files)
    train = prepared(Cityscapes, root, tmp_path / "out", "train")
    val = prepared(Cityscapes, root, tmp_path / "out", "val")
    assert list(train) == ["aachen_000000_000019"]
    assert list(val) == ["munster_000173_000019"]
    assert train["aachen_000000_000019"].stripes == names(CITYSCAPES)
    assert train["aachen_000000_000019"].tags == ["road", "sidewalk", "car", "bicycle"]
    assert val["munster_000173_000019"].image == photo
