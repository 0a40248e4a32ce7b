"""COCO-Stuff 164k with its 171 classes."""

import functools

import numpy as np
from jaxtyping import Int32, UInt16

from data_pipelines.builders.pairs import Layout, MaskBuilder, Where, indexed, value_table
from larvseg_jax.class_lists import raw

_UNLABELLED = 255
_TRAIN_IDS = "_labelTrainIds.png"


@functools.cache
def _official_table() -> Int32[np.ndarray, " values"]:
    """Value = official id - 1. The 11 ids that were never drawn have no meaning here."""
    classes = raw("coco_stuff_171")["label_png_value_to_index"]
    return value_table({int(value): label for value, label in classes.items()}, [_UNLABELLED])


@functools.cache
def _train_id_table() -> Int32[np.ndarray, " values"]:
    return value_table({label: label for label in range(171)}, [_UNLABELLED])


def _official(data: bytes, name: str) -> UInt16[np.ndarray, "h w"]:
    return indexed(data, name, _official_table())


def _train_ids(data: bytes, name: str) -> UInt16[np.ndarray, "h w"]:
    return indexed(data, name, _train_id_table())


def _where(year: str, name: str, suffix: str, besides: tuple[str, ...] = ()) -> Where:
    photos = (f"images/{year}", year, f"images/{name}")
    masks = (f"annotations/{year}", f"stuffthingmaps_trainval2017/{year}", f"annotations/{name}")
    return Where(photos, masks, mask_suffix=suffix, besides=besides)


class CocoStuff(MaskBuilder):
    """COCO-Stuff 164k: the photos of COCO 2017 with masks of 80 things and 91 kinds of stuff.

    Masks: the official ones of stuffthingmaps_trainval2017, or those that mmsegmentation (and with it the
    original) converts them to, called *_labelTrainIds.png. Both give the same records.
    """

    CLASS_LIST = "coco_stuff_171"
    EXPECTED = {"train": 118_287, "val": 5_000}
    FOLDERS = ("coco_stuff164k", "coco-stuff", "coco")
    # Converted masks lie among the official ones, so they come first.
    LAYOUTS = (
        Layout(
            "masks with train ids (*_labelTrainIds.png)",
            {
                "train": _where("train2017", "training", _TRAIN_IDS),
                "val": _where("val2017", "validation", _TRAIN_IDS),
            },
            _train_ids,
        ),
        Layout(
            "official masks (stuffthingmaps_trainval2017)",
            {
                "train": _where("train2017", "training", ".png", (_TRAIN_IDS,)),
                "val": _where("val2017", "validation", ".png", (_TRAIN_IDS,)),
            },
            _official,
        ),
    )
