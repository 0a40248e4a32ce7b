"""Cityscapes with its 19 classes of evaluation."""

import functools

import numpy as np
from jaxtyping import Int32, UInt16

from data_pipelines.builders.pairs import Layout, MaskBuilder, Where, indexed, value_table

_LABEL_IDS = (7, 8, 11, 12, 13, 17, 19, 20, 21, 22, 23, 24, 25, 26, 27, 28, 31, 32, 33)
"""Official label id of each class; the other ids up to 33 are left out of training and evaluation."""


@functools.cache
def _label_id_table() -> Int32[np.ndarray, " values"]:
    classes = {value: label for label, value in enumerate(_LABEL_IDS)}
    return value_table(classes, [value for value in range(34) if value not in classes])


@functools.cache
def _train_id_table() -> Int32[np.ndarray, " values"]:
    return value_table({label: label for label in range(19)}, [255])


def _label_ids(data: bytes, name: str) -> UInt16[np.ndarray, "h w"]:
    return indexed(data, name, _label_id_table())


def _train_ids(data: bytes, name: str) -> UInt16[np.ndarray, "h w"]:
    return indexed(data, name, _train_id_table())


def _where(split: str, mask_suffix: str) -> Where:
    return Where((f"leftImg8bit/{split}",), (f"gtFine/{split}",), "_leftImg8bit.png", mask_suffix)


class Cityscapes(MaskBuilder):
    """Cityscapes, fine annotations: leftImg8bit and gtFine as downloaded.

    The masks with train ids that cityscapesScripts makes are taken where they exist, else the label ids of the
    download are mapped here. Both give the same records.
    """

    CLASS_LIST = "cityscapes_19"
    EXPECTED = {"train": 2_975, "val": 500}
    FOLDERS = ("cityscapes",)
    PHOTOS_PER_PIECE = 100  # each more than two megabytes
    LAYOUTS = tuple(
        Layout(name, {split: _where(split, suffix) for split in ("train", "val")}, read)
        for name, suffix, read in (
            ("masks with train ids", "_gtFine_labelTrainIds.png", _train_ids),
            ("masks with label ids", "_gtFine_labelIds.png", _label_ids),
        )
    )
