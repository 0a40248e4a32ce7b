"""ADE20K in full, with the 847 classes that most photos show."""

import numpy as np
from jaxtyping import Int32

from data_pipelines.builders.encodings import Encoding, numbered, open_mask
from data_pipelines.builders.layouts import Layout, SplitFiles
from data_pipelines.builders.mask_builder import MaskBuilder
from data_pipelines.builders.records import IGNORE
from larvseg_jax.errors import UserError
from larvseg_jax.vocabulary.class_lists import raw


def _objects() -> dict[int, int]:
    """Number of an object in the release -> class id; most of the objects are no class and ignored, as is 0."""
    classes = {number: label for label, number in enumerate(raw("ade20k_full_847")["ade_full_ids"])}
    return dict.fromkeys(range(2**16), IGNORE) | classes


def _object_numbers(data: bytes, name: str, max_megapixels: int) -> Int32[np.ndarray, "h w"]:
    """Red and green channel say the object, blue the instance."""
    picture = open_mask(data, name, max_megapixels)
    if picture.mode != "RGB":
        raise UserError(
            f"{name}: a *_seg.png of ADE20K_2021_17_01 has the channels RGB, this one has {picture.mode}: "
            "take it from the original release"
        )
    pixels = np.asarray(picture).astype(np.int32)
    return pixels[..., 0] // 10 * 256 + pixels[..., 1]


def _tiff(name: str, short: str) -> SplitFiles:
    photos = (f"images_detectron2/{name}", f"{short}/image", f"images/{name}", f"images/{short}")
    masks = (f"annotations_detectron2/{name}", f"{short}/label", f"annotations/{name}", f"annotations/{short}")
    return SplitFiles(photos, masks, mask_suffix=".tif")


def _release(name: str) -> SplitFiles:
    return SplitFiles((f"images/ADE/{name}",), (f"images/ADE/{name}",), mask_suffix="_seg.png")


class Ade20kFull(MaskBuilder):
    """ADE20K in full, 847 classes: the release ADE20K_2021_17_01 or 16-bit TIFF masks made of it.

    Original: trains on a copy that MaskFormer's script makes, photos and masks reduced to a short side of at most
    512 pixels, the photos compressed anew. Taken here where it exists; the release itself gives its own
    photos and masks in full size, which training reduces anyway.
    """

    CLASS_LIST = "ade20k_full_847"
    EXPECTED = {"train": 25_574, "val": 2_000}
    FOLDERS = ("ADE20K_2021_17_01", "ade_full", "ADE20K_full")
    PHOTOS_PER_PIECE = 200
    LAYOUTS = (
        Layout(
            "16-bit TIFF masks",
            {"train": _tiff("training", "train"), "val": _tiff("validation", "val")},
            numbered(847, ignored=(IGNORE,)),
        ),
        Layout(
            "release 2021_17_01",
            {"train": _release("training"), "val": _release("validation")},
            Encoding(_objects, _object_numbers),
        ),
    )
