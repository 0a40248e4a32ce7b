"""PASCAL-Context: the photos of PASCAL VOC 2010 labelled in full, with its 59 frequent or all 459 classes."""

import functools
import io

import numpy as np
import scipy.io
from jaxtyping import Int32, Integer, UInt16

from data_pipelines.builders.pairs import Layout, MaskBuilder, Where, class_ids, indexed, value_table
from data_pipelines.builders.records import IGNORE, Unreadable
from larvseg_jax.class_lists import class_list
from larvseg_jax.errors import UserError

_FOLDERS = ("VOC2010", "VOCdevkit/VOC2010")


@functools.cache
def _table_59() -> Int32[np.ndarray, " values"]:
    """Value = class id + 1, 0 = one of the other classes."""
    return value_table({label + 1: label for label in range(59)}, [0])


@functools.cache
def _table_459() -> Int32[np.ndarray, " values"]:
    return value_table({label: label for label in range(459)}, [IGNORE])


@functools.cache
def _release_table(key: str) -> Int32[np.ndarray, " values"]:
    """Value = line of the release's labels.txt, the order of pascal_context_459; 0 = unlabelled."""
    labels = {name: label for label, name in enumerate(class_list(key).ids)}
    names = enumerate(class_list("pascal_context_459").ids, start=1)
    classes = {line: labels[name] for line, name in names if name in labels}
    return value_table(classes, [value for value in range(460) if value not in classes])


def _label_map(data: bytes, name: str) -> Integer[np.ndarray, "h w"]:
    """The numbers of a .mat file of the release."""
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


def _indexed_59(data: bytes, name: str) -> UInt16[np.ndarray, "h w"]:
    return indexed(data, name, _table_59())


def _indexed_459(data: bytes, name: str) -> UInt16[np.ndarray, "h w"]:
    return indexed(data, name, _table_459())


def _release_59(data: bytes, name: str) -> UInt16[np.ndarray, "h w"]:
    return class_ids(_label_map(data, name), _release_table("pascal_context_59"), name)


def _release_459(data: bytes, name: str) -> UInt16[np.ndarray, "h w"]:
    return class_ids(_label_map(data, name), _release_table("pascal_context_459"), name)


def _where(split: str, folder: str, suffix: str) -> Where:
    lists = (
        f"ImageSets/SegmentationContext/{split}.txt",
        f"pascalcontext_{split}.txt",
        f"ImageSets/Main/{split}.txt",
    )
    return Where(("JPEGImages",), (folder,), mask_suffix=suffix, lists=lists)


_RELEASE = {split: _where(split, "trainval", ".mat") for split in ("train", "val")}


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
            {split: _where(split, "SegmentationClassContext", ".png") for split in ("train", "val")},
            _indexed_59,
        ),
        Layout("MAT-files of the release", _RELEASE, _release_59),
    )


class PascalContext459(MaskBuilder):
    """PASCAL-Context, all 459 classes: the release's MAT-files, or 16-bit TIFF masks made of them."""

    CLASS_LIST = "pascal_context_459"
    EXPECTED = {"train": 4_998, "val": 5_105}
    FOLDERS = (*_FOLDERS, "pascal_ctx_d2")
    LAYOUTS = (
        Layout("MAT-files of the release", _RELEASE, _release_459),
        Layout(
            "16-bit TIFF masks by list",
            {split: _where(split, f"annotations_detectron2/pc459_{split}", ".tif") for split in ("train", "val")},
            _indexed_459,
        ),
        Layout(
            "16-bit TIFF masks by folder",
            {
                split: Where((f"images/{name}",), (f"annotations_ctx459/{name}",), mask_suffix=".tif")
                for split, name in (("train", "training"), ("val", "validation"))
            },
            _indexed_459,
        ),
    )
