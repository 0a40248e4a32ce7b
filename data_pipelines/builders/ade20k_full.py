"""ADE20K in full, with the 847 classes that most photos show."""

import functools

import numpy as np
from jaxtyping import Int32, UInt16

from data_pipelines.builders.pairs import Layout, MaskBuilder, Where, class_ids, decode, indexed, value_table
from data_pipelines.builders.records import IGNORE
from larvseg_jax.class_lists import raw
from larvseg_jax.errors import UserError


@functools.cache
def _object_table() -> Int32[np.ndarray, " values"]:
    """Ids of the release's some 3,000 objects; those that are no class, and 0, are ignored."""
    classes = {number: label for label, number in enumerate(raw("ade20k_full_847")["ade_full_ids"])}
    return value_table(classes, [number for number in range(2**16) if number not in classes])


@functools.cache
def _train_id_table() -> Int32[np.ndarray, " values"]:
    return value_table({label: label for label in range(847)}, [IGNORE])


def _objects(data: bytes, name: str) -> UInt16[np.ndarray, "h w"]:
    """Red and green channel say the object, blue the instance."""
    picture = decode(data, name)
    if picture.mode != "RGB":
        raise UserError(
            f"{name}: a *_seg.png of ADE20K_2021_17_01 has the channels RGB, this one has {picture.mode}: "
            "take it from the original release"
        )
    pixels = np.asarray(picture).astype(np.int32)
    return class_ids(pixels[..., 0] // 10 * 256 + pixels[..., 1], _object_table(), name)


def _train_ids(data: bytes, name: str) -> UInt16[np.ndarray, "h w"]:
    return indexed(data, name, _train_id_table())


def _tiff(long: str, short: str) -> Where:
    photos = (f"images_detectron2/{long}", f"{short}/image", f"images/{long}", f"images/{short}")
    masks = (f"annotations_detectron2/{long}", f"{short}/label", f"annotations/{long}", f"annotations/{short}")
    return Where(photos, masks, mask_suffix=".tif")


def _release(name: str) -> Where:
    return Where((f"images/ADE/{name}",), (f"images/ADE/{name}",), mask_suffix="_seg.png")


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
            "16-bit TIFF masks", {"train": _tiff("training", "train"), "val": _tiff("validation", "val")}, _train_ids
        ),
        Layout("release 2021_17_01", {"train": _release("training"), "val": _release("validation")}, _objects),
    )
