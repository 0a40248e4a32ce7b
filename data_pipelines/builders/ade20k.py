"""ADE20K with 150 classes: the MIT scene parsing benchmark."""

from data_pipelines.builders.encodings import numbered
from data_pipelines.builders.layouts import Layout, SplitFiles
from data_pipelines.builders.mask_builder import MaskBuilder


class Ade20k(MaskBuilder):
    """ADE20K, 150 classes: ADEChallengeData2016 as it is downloaded."""

    CLASS_LIST = "ade20k_150"
    EXPECTED = {"train": 20_210, "val": 2_000}
    FOLDERS = ("ADEChallengeData2016", "ade/ADEChallengeData2016")
    LAYOUTS = (
        Layout(
            "ADEChallengeData2016",
            {
                "train": SplitFiles(("images/training",), ("annotations/training",)),
                "val": SplitFiles(("images/validation",), ("annotations/validation",)),
            },
            numbered(150, first=1, ignored=(0,)),
        ),
    )
