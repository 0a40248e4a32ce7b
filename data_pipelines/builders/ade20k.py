"""ADE20K with 150 classes: the MIT scene parsing benchmark."""

import functools

import numpy as np
from jaxtyping import Int32, UInt16

from data_pipelines.builders.pairs import Layout, MaskBuilder, Where, indexed, value_table


@functools.cache
def _table() -> Int32[np.ndarray, " values"]:
    """Value = class id + 1, 0 = unlabelled."""
    return value_table({label + 1: label for label in range(150)}, [0])


def _read(data: bytes, name: str) -> UInt16[np.ndarray, "h w"]:
    return indexed(data, name, _table())


class Ade20k(MaskBuilder):
    """ADE20K, 150 classes: ADEChallengeData2016 as it is downloaded."""

    CLASS_LIST = "ade20k_150"
    EXPECTED = {"train": 20_210, "val": 2_000}
    FOLDERS = ("ADEChallengeData2016", "ade/ADEChallengeData2016")
    LAYOUTS = (
        Layout(
            "ADEChallengeData2016",
            {
                "train": Where(("images/training",), ("annotations/training",)),
                "val": Where(("images/validation",), ("annotations/validation",)),
            },
            _read,
        ),
    )
