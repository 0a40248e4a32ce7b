"""Cityscapes with its 19 classes of evaluation."""

from data_pipelines.builders.encodings import Encoding, numbered
from data_pipelines.builders.layouts import Layout, SplitFiles
from data_pipelines.builders.mask_builder import MaskBuilder
from data_pipelines.builders.records import IGNORE

_LABEL_IDS = (7, 8, 11, 12, 13, 17, 19, 20, 21, 22, 23, 24, 25, 26, 27, 28, 31, 32, 33)
"""Official label id of each class; the other ids up to 33 are left out of training and evaluation."""


def _label_id_meanings() -> dict[int, int]:
    return dict.fromkeys(range(34), IGNORE) | {value: label for label, value in enumerate(_LABEL_IDS)}


def _split_files(split: str, mask_suffix: str) -> SplitFiles:
    return SplitFiles((f"leftImg8bit/{split}",), (f"gtFine/{split}",), "_leftImg8bit.png", mask_suffix)


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
        Layout(name, {split: _split_files(split, suffix) for split in ("train", "val")}, encoding)
        for name, suffix, encoding in (
            ("masks with train ids", "_gtFine_labelTrainIds.png", numbered(19, ignored=(255,))),
            ("masks with label ids", "_gtFine_labelIds.png", Encoding(_label_id_meanings)),
        )
    )
