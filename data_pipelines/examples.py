"""One element of a data source, as stored and as a stream reads it, and how class ids become the stream's columns."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Sequence
from typing import Any, Literal, NotRequired, Protocol, SupportsIndex, TypedDict, runtime_checkable

import cv2
import numpy as np
from jaxtyping import Int32, Integer, UInt8

from data_pipelines.decode import decode_image
from data_pipelines.faults import Fault, raise_first
from data_pipelines.mask_evidence import smeared
from data_pipelines.orientation import turned_mask
from larvseg_jax.console import printable
from larvseg_jax.errors import DataError, UserError
from larvseg_jax.vocabulary import IGNORE_LABEL, LabelSet

_INVALID = -2  # in LabelMap.table: a value the data set gives no meaning to


Reads = Literal["masks", "tags", "captions"]
"""What a stream reads besides the photos, which its examples then have: `label`, `tags` or `captions`."""


@dataclasses.dataclass(frozen=True)
class RawPhoto:
    """One photo as it is stored, not decoded yet.

    Attributes:
      id: of the photo.
      image_name: how messages call the picture; mask_name likewise.
      image: bytes of the picture.
      mask: bytes of the mask; None if there is none or none is wanted.
      tags: class ids of the data set; None if it has none.
      captions: as stored; () if none are wanted.
    """

    id: str
    image_name: str
    image: bytes
    mask_name: str = ""
    mask: bytes | None = None
    tags: tuple[int, ...] | None = None
    captions: tuple[str, ...] = ()


class Example(TypedDict):
    """One photo as a source gives it."""

    id: str
    image: UInt8[np.ndarray, "h w 3"]  # RGB
    label: NotRequired[Int32[np.ndarray, "h w"]]  # columns or IGNORE_LABEL, if masks were asked for
    tags: NotRequired[Int32[np.ndarray, " k"]]  # ascending columns, if tags were asked for
    captions: NotRequired[tuple[str, ...]]  # at least one, none of them empty, if captions were asked for


@runtime_checkable
class Source(Protocol):
    """Random access to the photos of one split."""

    def __len__(self) -> int:
        """Number of photos."""
        ...

    def __getitem__(self, index: SupportsIndex, /) -> Example:
        """Photo number `index`, read and decoded now. Must be safe to call from several threads."""
        ...


@dataclasses.dataclass(frozen=True)
class LabelMap:
    """Class ids of a data set -> columns of a stream.

    Pixels of a class that the stream does not know become IGNORE_LABEL, tags of such a class
    disappear: this is what keeps the masks of novel classes out of training.

    Attributes:
      columns: column of every class id; classes of the same name share one.
      table: (65536,) column of every value a mask can have.
      where: file with the class list, for error messages.
      ignore: mask value without class, None if there is none.
    """

    columns: Int32[np.ndarray, " classes"]
    table: Int32[np.ndarray, " values"]
    where: str
    ignore: int | None

    @classmethod
    def build(cls, names: Sequence[str], ignore: int | None, label_set: LabelSet, where: str) -> LabelMap:
        """Match `names` (by class id) with the stream's classes; UserError if none is shared."""
        columns = np.array([label_set.column(name) for name in names], np.int32)
        if not (columns >= 0).any():
            shown = printable(", ".join(names[:3]))
            raise UserError(
                f"{where}: none of its {len(names)} classes ({shown}, ...) is among the "
                f"stream's {len(label_set)} ({', '.join(label_set.names[:3])}, ...): correct `classes`"
            )
        if ignore is not None and 0 <= ignore < len(names):
            raise UserError(f"{where}: ignore value {ignore} is also the id of class {names[ignore]!r}: choose another")
        table = np.full(2**16, _INVALID, np.int32)
        table[: len(names)] = columns
        if ignore is not None:
            table[ignore] = IGNORE_LABEL
        return cls(columns, table, where, ignore)

    def label(
        self, mask: Integer[np.ndarray, "mask_h mask_w"], image: UInt8[np.ndarray, "h w 3"], name: str
    ) -> Int32[np.ndarray, "h w"]:
        """Columns of the mask of class ids of `image`.

        Raises:
          DataError: mask and image differ in size, or a value is outside the data set's classes.
        """
        if mask.shape != image.shape[:2]:
            sizes = f"mask of {mask.shape[1]}x{mask.shape[0]} pixels for a photo of {image.shape[1]}x{image.shape[0]}"
            raise DataError("size", f"{name}: {sizes}", "make them the same size")
        if mask.dtype != np.uint8:
            self._refuse(mask, (mask < 0) | (mask >= len(self.table)), name)
            mask = mask.astype(np.uint16, copy=False)
        label = cv2.LUT(mask, self.table if mask.dtype == np.uint16 else self.table[:256])
        if label.min(initial=0) == _INVALID:
            self._refuse(mask, label == _INVALID, name)
        return label

    def tags(self, ids: Sequence[int], name: str) -> Int32[np.ndarray, " k"]:
        """Ascending columns of a photo's class ids, those the stream does not know left out.

        Raises:
          DataError: an id that is no class of the data set.
        """
        raise_first(tag_faults(ids, len(self.columns), name, self.where))
        columns = np.unique(self.columns[np.asarray(ids, np.int64)])
        return columns[columns != IGNORE_LABEL]

    def _refuse(self, mask: np.ndarray, wrong: np.ndarray, name: str) -> None:
        """Raise for the first wrong pixel, if there is one."""
        if not wrong.any():
            return
        if smeared(mask, wrong):
            values = len(np.unique(mask[wrong]))
            what = f"{values} values that are no class of {self.where}, strewn over {np.count_nonzero(wrong):,} pixels"
            remedy = "export it anew, as PNG and in its own size (nearest neighbour if it must be resized)"
            raise DataError("lossy", f"{name}: {what}, as JPEG or smooth resizing leaves them", remedy)
        row, column = np.argwhere(wrong)[0]
        ignore = "" if self.ignore is None else f" nor {self.ignore} (ignore)"
        raise DataError(
            "value",
            f"{name}: value {mask[row, column]} at row {row}, column {column} is not among the classes "
            f"0..{len(self.columns) - 1} of {self.where}{ignore}",
            "correct the mask or the class list",
        )


def is_class_id(value: Any, class_count: int) -> bool:
    """Whether a value, of JSON or of a record, is one of the class ids 0..class_count-1."""
    return type(value) is int and 0 <= value < class_count  # true and false of JSON are instances of int


def tag_faults(ids: Sequence[Any], class_count: int, name: str, where: str) -> list[Fault]:
    """A fault for every image label of the photo `name` that is no class of the list in `where`."""
    return [
        Fault(
            "tag",
            f"{name}: image label {i!r} is not among the classes 0..{class_count - 1} of {where}",
            "correct one of the two",
        )
        for i in ids
        if not is_class_id(i, class_count)
    ]


def decoded(
    photo: RawPhoto,
    label_map: LabelMap,
    decode_mask: Callable[[bytes, str, int], Integer[np.ndarray, "h w"]],
    max_megapixels: int,
    *,
    tags: bool,
) -> Example:
    """The photo as a stream reads it: `label` if it has a mask, `tags` if they are asked for.

    Raises:
      DataError: something of it cannot be read, or does not fit the data set's classes.
    """
    image = decode_image(photo.image, photo.image_name, max_megapixels)
    example: Example = {"id": photo.id, "image": image}
    if photo.mask is not None:
        mask = decode_mask(photo.mask, photo.mask_name, max_megapixels)
        mask = turned_mask(mask, image.shape[:2], photo.image)
        example["label"] = label_map.label(mask, image, photo.mask_name)
    if tags:
        example["tags"] = label_map.tags(photo.tags or (), photo.image_name)
    return example
