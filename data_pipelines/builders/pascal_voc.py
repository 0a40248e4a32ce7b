"""PASCAL VOC 2012 segmentation with its 20 classes of objects."""

import functools

import numpy as np
from jaxtyping import Int32, UInt16

from data_pipelines.builders.pairs import Layout, MaskBuilder, Where, indexed, value_table

_OFFICIAL = "SegmentationClass"


@functools.cache
def _table() -> Int32[np.ndarray, " values"]:
    """Value = class id + 1. The background is no class of this list and ignored, as are the borders (255)."""
    return value_table({label + 1: label for label in range(20)}, [0, 255])


def _read(data: bytes, name: str) -> UInt16[np.ndarray, "h w"]:
    return indexed(data, name, _table())


def _where(split: str, *masks: str) -> Where:
    return Where(("JPEGImages",), masks, lists=(f"ImageSets/Segmentation/{split}.txt",))


class PascalVoc(MaskBuilder):
    """PASCAL VOC 2012, 20 classes without background.

    With SegmentationClassAug and trainaug.txt (the masks of the Semantic Boundaries Dataset in VOC's numbers)
    there is a third split, "trainaug"; photos that have an official mask keep it there.
    """

    CLASS_LIST = "voc_20"
    EXPECTED = {"train": 1_464, "val": 1_449}
    FOLDERS = ("VOC2012", "VOCdevkit/VOC2012")
    LAYOUTS = (
        Layout(
            "VOC2012",
            {
                "train": _where("train", _OFFICIAL),
                "trainaug": _where("trainaug", _OFFICIAL, "SegmentationClassAug"),
                "val": _where("val", _OFFICIAL),
            },
            _read,
        ),
    )
