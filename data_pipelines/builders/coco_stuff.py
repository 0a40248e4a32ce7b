"""COCO-Stuff 164k with its 171 classes."""

from data_pipelines.builders.encodings import Encoding, numbered
from data_pipelines.builders.layouts import Layout, SplitFiles
from data_pipelines.builders.mask_builder import MaskBuilder
from data_pipelines.builders.records import IGNORE
from larvseg_jax.vocabulary.class_lists import raw

_UNLABELLED = 255
_TRAIN_IDS = "_labelTrainIds.png"


def _official() -> dict[int, int]:
    """Value = official id - 1. The 11 ids that were never drawn have no meaning here."""
    values = raw("coco_stuff_171")["label_png_value_to_index"]
    return {int(value): label for value, label in values.items()} | {_UNLABELLED: IGNORE}


def _split_files(year: str, name: str, suffix: str, not_masks: tuple[str, ...] = ()) -> SplitFiles:
    photos = (f"images/{year}", year, f"images/{name}")
    masks = (f"annotations/{year}", f"stuffthingmaps_trainval2017/{year}", f"annotations/{name}")
    return SplitFiles(photos, masks, mask_suffix=suffix, not_masks=not_masks)


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
                "train": _split_files("train2017", "training", _TRAIN_IDS),
                "val": _split_files("val2017", "validation", _TRAIN_IDS),
            },
            numbered(171, ignored=(_UNLABELLED,)),
        ),
        Layout(
            "official masks (stuffthingmaps_trainval2017)",
            {
                "train": _split_files("train2017", "training", ".png", (_TRAIN_IDS,)),
                "val": _split_files("val2017", "validation", ".png", (_TRAIN_IDS,)),
            },
            Encoding(_official),
        ),
    )
