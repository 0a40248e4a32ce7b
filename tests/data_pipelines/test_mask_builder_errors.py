"""What is wrong with a download of masks is said by file, value and remedy; a broken photo is left out and listed."""

import io
import json

import cv2
import numpy as np
import pytest
import scipy.io
from PIL import Image

from data_pipelines.builders.ade20k import Ade20k
from data_pipelines.builders.ade20k_full import Ade20kFull
from data_pipelines.builders.cityscapes import Cityscapes
from data_pipelines.builders.coco_stuff import CocoStuff
from data_pipelines.builders.mask_builder import MaskedPhotos
from data_pipelines.builders.pascal_context import PascalContext59, PascalContext459
from data_pipelines.builders.pascal_voc import PascalVoc
from data_pipelines.builders.preparation import prepare
from data_pipelines.decode import decode_image
from larvseg_jax.errors import UserError
from tests.data_pipelines.mask_trees import (
    HEIGHT,
    grey,
    jpeg,
    mat,
    object_ids,
    palette,
    png_photo,
    prepared,
    saved,
    stripes,
    tiff,
    write,
)

PHOTO = jpeg(6)
NO_LABEL_MAP = io.BytesIO()
scipy.io.savemat(NO_LABEL_MAP, {"Labels": np.ones((HEIGHT, 6))})


def ade(mask, photo=PHOTO, name="ADE_val_00000007", **others):
    return {
        f"images/validation/{name}.jpg": photo,
        f"annotations/validation/{name}.png": mask,
        **others,
    }


def coco(mask, suffix):
    return {"images/val2017/000000000139.jpg": PHOTO, f"annotations/val2017/000000000139{suffix}": mask}


def voc(mask, **others):
    return {
        "JPEGImages/2007_000033.jpg": PHOTO,
        "SegmentationClass/2007_000033.png": mask,
        "ImageSets/Segmentation/val.txt": "2007_000033\n",
        **others,
    }


def context(mask, masks="trainval", suffix=".mat"):
    return {
        "JPEGImages/2008_000003.jpg": PHOTO,
        f"{masks}/2008_000003{suffix}": mask,
        "ImageSets/SegmentationContext/val.txt": "2008_000003\n",
    }


def cityscapes(mask, kind):
    return {
        "leftImg8bit/val/ulm/ulm_000000_000019_leftImg8bit.png": png_photo(6),
        f"gtFine/val/ulm/ulm_000000_000019_gtFine_{kind}.png": mask,
    }


def ade_full(mask):
    folder = "images/ADE/validation/urban/street/ADE_val_00000001"
    return {f"{folder}.jpg": PHOTO, f"{folder}_seg.png": mask}


COLOURS = saved(Image.fromarray(np.zeros((HEIGHT, 6, 3), np.uint8)), "PNG")

ERRORS = {
    # values outside the encoding
    "never drawn": (CocoStuff, coco(grey([0, 25]), ".png"), r"val2017/0+139\.png: value 25 at row 0, column 3 is none"),
    "train id": (CocoStuff, coco(grey([0, 171]), "_labelTrainIds.png"), r"value 171 .* \(0\.\.170, 255\): check"),
    "ade": (
        Ade20k,
        ade(grey([151, 1])),
        r"validation/ADE_val_00000007\.png: value 151 at row 0, column 0 .*\(0\.\.150\)",
    ),
    "ade, no 255": (Ade20k, ade(grey([1, 255])), r"value 255 at row 0, column 3"),
    "ade full": (
        Ade20kFull,
        {"val/image/ADE_val_1.jpg": PHOTO, "val/label/ADE_val_1.tif": tiff([846, 847])},
        r"val/label/ADE_val_1\.tif: value 847 at row 0, column 3 is none .* \(0\.\.846, 65535\)",
    ),
    "voc": (PascalVoc, voc(palette([20, 21])), r"2007_000033\.png: value 21 .* \(0\.\.20, 255\)"),
    "context 59": (
        PascalContext59,
        context(grey([59, 60]), "SegmentationClassContext", ".png"),
        r"SegmentationClassContext/2008_000003\.png: value 60 .* \(0\.\.59\)",
    ),
    "context 459": (PascalContext459, context(mat([459, 460])), r"2008_000003\.mat: value 460 .* \(0\.\.459\)"),
    "context tiff": (
        PascalContext459,
        context(tiff([458, 459]), "annotations_detectron2/pc459_val", ".tif"),
        r"pc459_val/2008_000003\.tif: value 459 .* \(0\.\.458, 65535\)",
    ),
    "label ids": (Cityscapes, cityscapes(grey([33, 34]), "labelIds"), r"labelIds\.png: value 34 .* \(0\.\.33\)"),
    "train ids": (Cityscapes, cityscapes(grey([18, 19]), "labelTrainIds"), r"value 19 .* \(0\.\.18, 255\)"),
    # colours where indices are expected, and the reverse
    "coloured": (
        PascalVoc,
        voc(COLOURS),
        r"2007_000033\.png: a mask needs one channel .* RGB, .*; or check .* not coloured",
    ),
    "indexed": (
        Ade20kFull,
        ade_full(grey([1, 2])),
        r"ADE_val_00000001_seg\.png: .* channels RGB, this one has L: take",
    ),
    "no LabelMap": (
        PascalContext59,
        context(NO_LABEL_MAP.getvalue()),
        r"2008_000003\.mat: no LabelMap of whole numbers in it, only Labels: take",
    ),
    # files that do not fit each other
    "size": (Ade20k, ade(grey([1, 2, 3])), r"ADE_val_00000007.*mask has 9x6 pixels, the picture 6x6"),
    "no mask": (
        Ade20k,
        ade(grey([1, 2]), **{"images/validation/ADE_val_00000008.jpg": PHOTO}),
        r"annotations/validation: 1 masks are missing, the first is ADE_val_00000008\.png: unpack",
    ),
    "no photo": (
        Ade20k,
        ade(grey([1, 2]), **{"annotations/validation/ADE_val_00000008.png": grey([1, 2])}),
        r"images/validation: 1 photos are missing, the first is ADE_val_00000008\.jpg, which has a mask: unpack",
    ),
    "listed photo": (
        PascalVoc,
        voc(palette([1, 2]), **{"ImageSets/Segmentation/val.txt": "2007_000033\n2007_000042\n"}),
        r"JPEGImages: 1 photos are missing, the first is 2007_000042\.jpg, which is in .*/val\.txt: unpack",
    ),
    "listed mask": (
        PascalVoc,
        voc(
            palette([1, 2]),
            **{"ImageSets/Segmentation/val.txt": "2007_000042", "JPEGImages/2007_000042.jpg": PHOTO},
        ),
        r"SegmentationClass: 1 masks are missing, the first is 2007_000042\.png: unpack \(or convert\)",
    ),
    "same name": (
        Cityscapes,
        cityscapes(grey([7, 8]), "labelIds")
        | {name.replace("ulm/", "bonn/"): data for name, data in cityscapes(grey([7, 8]), "labelIds").items()},
        r"ulm/ulm_000000_000019_leftImg8bit\.png: .*bonn/ulm_000000_000019_left.* has the same name: take one",
    ),
}


@pytest.mark.parametrize("case", ERRORS)
def test_wrong_downloads_are_refused(case, tmp_path):
    builder, files, message = ERRORS[case]
    with pytest.raises(UserError, match=message) as error:
        prepare(builder, write(tmp_path / "in", files), tmp_path / "out")
    assert "\n" not in str(error.value)


@pytest.mark.parametrize(
    ("builder", "looked"),
    [
        (CocoStuff, r"images/val2017 or val2017 .*annotations/val2017.*/\*_labelTrainIds\.png; .*stuffthingmaps"),
        (Ade20k, r"neither here nor in ADEChallengeData2016 .*images/validation/\*\.jpg with annotations/validation"),
        (Ade20kFull, r"annotations_detectron2/validation .*\.tif; images/ADE/validation/\*\.jpg with .*_seg\.png"),
        (PascalVoc, r"VOCdevkit/VOC2012 .*SegmentationClass/\*\.png and ImageSets/Segmentation/val\.txt"),
        (PascalContext59, r"SegmentationClassContext/\*\.png .*; .*trainval/\*\.mat and .*ImageSets/Main/val\.txt"),
        (PascalContext459, r"trainval/\*\.mat .*pc459_val/\*\.tif .*annotations_ctx459/validation/\*\.tif"),
        (Cityscapes, r"leftImg8bit/val/\*_leftImg8bit\.png with gtFine/val/\*_gtFine_labelTrainIds\.png; .*labelIds"),
    ],
)
def test_an_unknown_layout_names_what_was_looked_for(builder, looked, tmp_path):
    (tmp_path / "in" / "images").mkdir(parents=True)
    with pytest.raises(
        UserError, match=rf"/in: no layout of {builder.CLASS_LIST} that is known.*{looked}.*docs/data\.md"
    ):
        prepare(builder, tmp_path / "in", tmp_path / "out")


@pytest.mark.parametrize(
    ("builder", "files", "broken"),
    [
        (Ade20k, ade(grey([1, 2])), ".jpg"),
        (Ade20k, ade(grey([1, 2])), ".png"),
        (Ade20kFull, ade_full(object_ids([1, 2])), "_seg.png"),
        (PascalContext459, context(mat([1, 2])), ".mat"),
    ],
)
def test_a_broken_file_leaves_its_photo_out(builder, files, broken, tmp_path):
    half = {name: data[: len(data) // 2] if name.endswith(broken) else data for name, data in files.items()}
    other = {name.replace("00000", "00001"): data for name, data in files.items()}
    if builder is PascalContext459:
        other["ImageSets/SegmentationContext/val.txt"] = "2008_000003\n2008_000013\n"
    records = prepared(builder, write(tmp_path / "in", half | other), tmp_path / "out", "val")
    assert [record.image for record in records.values()] == [PHOTO]
    metadata = json.loads((tmp_path / "out" / builder.CLASS_LIST / "1.0.0" / "metadata.json").read_text())
    ((split, (unreadable,)),) = metadata["unreadable"].items()
    (name,) = (name for name in files if name.endswith(broken))
    assert (split, unreadable["file"]) == ("val", str(tmp_path / "in" / name))
    assert unreadable["reason"].startswith("no readable")


def test_one_split_is_enough(tmp_path):
    root = write(tmp_path / "in", ade(grey([1, 2])))
    assert list(prepared(Ade20k, root, tmp_path / "out", "val")) == ["ADE_val_00000007"]
    builder = Ade20k(data_dir=str(tmp_path))
    assert builder.layout(root) == "ADEChallengeData2016"
    assert builder.remarks(root) == ["no split 'train', its files are not here"]


def test_the_layout_with_most_splits_is_taken(tmp_path):
    files = coco(grey([0, 1]), "_labelTrainIds.png") | coco(grey([0, 12]), ".png")
    files |= {name.replace("val2017", "train2017"): data for name, data in coco(grey([0, 12]), ".png").items()}
    train = prepared(CocoStuff, write(tmp_path / "in", files), tmp_path / "out", "train")
    assert train["000000000139"].stripes == ["person", "stop sign"]


def test_files_of_other_programs_are_no_photos(tmp_path):
    files = ade(grey([1, 2]), **{"images/validation/._ADE_val_00000007.jpg": b"", "images/validation/Thumbs.db": b""})
    assert list(prepared(Ade20k, write(tmp_path / "in", files), tmp_path / "out", "val")) == ["ADE_val_00000007"]


@pytest.mark.parametrize(
    "left",
    [
        "images/validation/.ipynb_checkpoints/ADE_val_00000007-checkpoint.jpg",
        "images/validation/@eaDir/ADE_val_00000007.jpg/SYNOPHOTO_THUMB_M.jpg",
        "images/validation/__MACOSX/ADE_val_00000008.jpg",
        "annotations/validation/.ipynb_checkpoints/ADE_val_00000007-checkpoint.png",
        "annotations/validation/#recycle/ADE_val_00000009.png",
        "images/validation/$RECYCLE.BIN/ADE_val_00000009.jpg",
    ],
)
def test_folders_of_other_programs_are_passed_over_and_named(tmp_path, capsys, left):
    files = ade(grey([1, 2]), **{left: b"not ours"})
    assert list(prepared(Ade20k, write(tmp_path / "in", files), tmp_path / "out", "val")) == ["ADE_val_00000007"]
    folder = "/".join(left.split("/")[:3])
    assert f"folders of other programs passed over: {folder}" in " ".join(capsys.readouterr().out.split())


@pytest.mark.parametrize("orientation", range(1, 9))
def test_masks_turn_with_their_photos(orientation, tmp_path):
    """A photo of a dark quarter whose mask was drawn on the pixels as stored; OpenCV turns the photo."""
    pixels, mask = np.full((32, 48, 3), 255, np.uint8), np.full((32, 48), 1, np.uint8)
    pixels[:16, :16], mask[:16, :16] = 0, 2
    exif = Image.Exif()
    exif[0x0112] = orientation
    file = io.BytesIO()
    Image.fromarray(pixels).save(file, "JPEG", quality=95, exif=exif)
    files = ade(saved(Image.fromarray(mask), "PNG"), photo=file.getvalue())
    root = write(tmp_path, files)
    piece = MaskedPhotos(
        "ADEChallengeData2016",
        root,
        (("ADE_val_00000007", *files),),
    )
    (photo,) = Ade20k(data_dir=str(tmp_path)).photos(piece)
    seen = decode_image(photo.image, "photo")
    assert seen.shape[:2] == ((32, 48) if orientation < 5 else (48, 32))
    assert photo.mask.shape == seen.shape[:2]
    if orientation not in (2, 3, 4):  # of which the sizes say nothing
        np.testing.assert_array_equal(photo.mask == 1, cv2.cvtColor(seen, cv2.COLOR_RGB2GRAY) < 128)


def test_pieces_are_small_and_in_order(tmp_path):
    numbers = [f"ADE_val_{i:08}" for i in range(1, 702)]
    files = {f"images/validation/{name}.jpg": b"" for name in numbers}
    files |= {f"annotations/validation/{name}.png": b"" for name in numbers}
    pieces = Ade20k(data_dir=str(tmp_path)).pieces(write(tmp_path / "in", files))
    assert list(pieces) == ["val"]
    assert [len(piece.files) for piece in pieces["val"]] == [300, 300, 101]
    assert [photo for piece in pieces["val"] for photo, *_ in piece.files] == numbers


def test_a_lossy_copy_of_a_mask_is_refused(tmp_path):
    """A palette mask saved as JPEG has values of every kind."""
    rng = np.random.default_rng(0)
    lossy = saved(Image.fromarray(stripes([0, 20], np.uint8) + rng.integers(0, 90, (HEIGHT, 6), np.uint8)), "PNG")
    with pytest.raises(UserError, match=r"2007_000033\.png: value \d+ .* is none of this encoding \(0\.\.20, 255\)"):
        prepare(PascalVoc, write(tmp_path / "in", voc(lossy)), tmp_path / "out")
