"""PASCAL VOC 2012 segmentation with its 20 classes of objects."""

from data_pipelines.builders.encodings import numbered
from data_pipelines.builders.layouts import Layout, SplitFiles
from data_pipelines.builders.mask_builder import MaskBuilder

_OFFICIAL = "SegmentationClass"


def _split_files(split: str, *masks: str) -> SplitFiles:
    return SplitFiles(("JPEGImages",), masks, lists=(f"ImageSets/Segmentation/{split}.txt",))


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
                "train": _split_files("train", _OFFICIAL),
                "trainaug": _split_files("trainaug", _OFFICIAL, "SegmentationClassAug"),
                "val": _split_files("val", _OFFICIAL),
            },
            numbered(20, first=1, ignored=(0, 255)),  # the background is no class of this list; 255: borders
        ),
    )
