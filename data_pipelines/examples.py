"""One element of a data source, and how a data set's class ids become the columns of a stream."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from typing import Any, NotRequired, Protocol, SupportsIndex, TypedDict, runtime_checkable

import cv2
import numpy as np
from jaxtyping import Int32, Integer, UInt8

from larvseg_jax.errors import UserError
from larvseg_jax.vocabulary import IGNORE_LABEL, LabelSet

_INVALID = -2  # in LabelMap.table: a value the data set gives no meaning to


class Example(TypedDict):
    """One photo as a source gives it."""

    id: str
    image: UInt8[np.ndarray, "h w 3"]  # RGB
    label: NotRequired[Int32[np.ndarray, "h w"]]  # columns or IGNORE_LABEL, if masks were asked for
    tags: NotRequired[Int32[np.ndarray, " k"]]  # ascending columns, if tags were asked for


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
            raise UserError(
                f"{where}: none of its {len(names)} classes ({', '.join(names[:3])}, ...) is among the "
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
          UserError: mask and image differ in size, or a value is outside the data set's classes.
        """
        if mask.shape != image.shape[:2]:
            raise UserError(
                f"{name}: mask of {mask.shape[1]}x{mask.shape[0]} pixels for a photo of "
                f"{image.shape[1]}x{image.shape[0]}: make them the same size"
            )
        if mask.dtype != np.uint8:
            self._refuse(mask, (mask < 0) | (mask >= len(self.table)), name)
            mask = mask.astype(np.uint16, copy=False)
        label = cv2.LUT(mask, self.table if mask.dtype == np.uint16 else self.table[:256])
        if label.min(initial=0) == _INVALID:
            self._refuse(mask, label == _INVALID, name)
        return label

    def tags(self, ids: Any, name: str) -> Int32[np.ndarray, " k"]:
        """Ascending columns of a photo's list of class ids, those the stream does not know left out."""
        if not isinstance(ids, list):
            raise UserError(f"{name}: image labels are {ids!r}: give a list of class ids")
        wrong = [i for i in ids if not isinstance(i, int | np.integer) or not 0 <= i < len(self.columns)]
        if wrong:
            raise UserError(
                f"{name}: image label {wrong[0]!r} is not among the classes 0..{len(self.columns) - 1} of "
                f"{self.where}: correct one of the two"
            )
        columns = np.unique(self.columns[np.asarray(ids, np.int64)])
        return columns[columns != IGNORE_LABEL]

    def _refuse(self, mask: np.ndarray, wrong: np.ndarray, name: str) -> None:
        """Raise for the first wrong pixel, if there is one."""
        if not wrong.any():
            return
        row, column = np.argwhere(wrong)[0]
        ignore = "" if self.ignore is None else f" nor {self.ignore} (ignore)"
        raise UserError(
            f"{name}: value {mask[row, column]} at row {row}, column {column} is not among the classes "
            f"0..{len(self.columns) - 1} of {self.where}{ignore}: correct the mask or the class list"
        )
