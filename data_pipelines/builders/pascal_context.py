"""PASCAL-Context: the photos of PASCAL VOC 2010 labelled in full, with its 59 frequent or all 459 classes."""

import functools
import io

import numpy as np
import scipy.io
from jaxtyping import Integer

from data_pipelines.builders.encodings import Encoding, numbered
from data_pipelines.builders.layouts import Layout, SplitFiles
from data_pipelines.builders.mask_builder import MaskBuilder
from data_pipelines.builders.records import IGNORE, Unreadable
from larvseg_jax.errors import UserError
from larvseg_jax.vocabulary.class_lists import class_list

_FOLDERS = ("VOC2010", "VOCdevkit/VOC2010")


def _lines_of(key: str) -> dict[int, int]:
    """Line of the release's labels.txt, which has the order of pascal_context_459 -> class id; 0 = unlabelled."""
    labels = {name: label for label, name in enumerate(class_list(key).ids)}
    lines = enumerate(class_list("pascal_context_459").ids, start=1)
    return {0: IGNORE} | {line: labels.get(name, IGNORE) for line, name in lines}


def _label_map(data: bytes, name: str, max_megapixels: int) -> Integer[np.ndarray, "h w"]:
    """The numbers of a .mat file of the release, which is no picture: its photo's size is what is limited."""
    try:
        content = scipy.io.loadmat(io.BytesIO(data))
    except Exception as error:  # not a MAT-file (ValueError, TypeError), cut short (zlib.error, OSError), ...
        raise Unreadable(name, f"no readable MAT-file: {error}") from error
    numbers = content.get("LabelMap")
    if not isinstance(numbers, np.ndarray) or numbers.ndim != 2 or numbers.dtype.kind not in "iu":
        names = ", ".join(key for key in content if not key.startswith("__"))
        raise UserError(
            f"{name}: no LabelMap of whole numbers in it, only {names or 'nothing'}: "
            "take the file from the release's trainval.tar.gz"
        )
    return numbers


def _release(key: str) -> Encoding:
    return Encoding(functools.partial(_lines_of, key), _label_map)


def _split_files(split: str, folder: str, suffix: str) -> SplitFiles:
    lists = (
        f"ImageSets/SegmentationContext/{split}.txt",
        f"pascalcontext_{split}.txt",
        f"ImageSets/Main/{split}.txt",
    )
    return SplitFiles(("JPEGImages",), (folder,), mask_suffix=suffix, lists=lists)


_RELEASE_FILES = {split: _split_files(split, "trainval", ".mat") for split in ("train", "val")}
_TIFF = numbered(459, ignored=(IGNORE,))


class PascalContext59(MaskBuilder):
    """PASCAL-Context, 59 classes: masks converted by mmsegmentation, else the release's MAT-files.

    Original: the former. They come from a later version of the annotations (trainval_merged.json) and differ from
    the MAT-files in places, so that published results are not quite comparable with the latter.
    """

    CLASS_LIST = "pascal_context_59"
    EXPECTED = {"train": 4_998, "val": 5_105}
    FOLDERS = _FOLDERS
    LAYOUTS = (
        Layout(
            "SegmentationClassContext",
            {split: _split_files(split, "SegmentationClassContext", ".png") for split in ("train", "val")},
            numbered(59, first=1, ignored=(0,)),  # 0: one of the other classes
        ),
        Layout("MAT-files of the release", _RELEASE_FILES, _release("pascal_context_59")),
    )


class PascalContext459(MaskBuilder):
    """PASCAL-Context, all 459 classes: the release's MAT-files, or 16-bit TIFF masks made of them."""

    CLASS_LIST = "pascal_context_459"
    EXPECTED = {"train": 4_998, "val": 5_105}
    FOLDERS = (*_FOLDERS, "pascal_ctx_d2")
    LAYOUTS = (
        Layout("MAT-files of the release", _RELEASE_FILES, _release("pascal_context_459")),
        Layout(
            "16-bit TIFF masks by list",
            {split: _split_files(split, f"annotations_detectron2/pc459_{split}", ".tif") for split in ("train", "val")},
            _TIFF,
        ),
        Layout(
            "16-bit TIFF masks by folder",
            {
                split: SplitFiles((f"images/{name}",), (f"annotations_ctx459/{name}",), mask_suffix=".tif")
                for split, name in (("train", "training"), ("val", "validation"))
            },
            _TIFF,
        ),
    )
