"""How a mask file says the class of each pixel."""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Callable, Mapping

import numpy as np
from jaxtyping import Int32, Integer, UInt16
from PIL import Image

from data_pipelines import decode
from data_pipelines.builders.records import IGNORE, Unreadable
from data_pipelines.picture_files import MAX_MEGAPIXELS
from larvseg_jax.errors import DataError, UserError

_INVALID = -1  # in an encoding's table: a value without meaning


def open_mask(data: bytes, name: str, max_megapixels: int = MAX_MEGAPIXELS) -> Image.Image:
    """A mask file as Pillow reads it; Unreadable if it cannot."""
    try:
        return decode.open_mask(data, name, max_megapixels)
    except DataError as error:
        raise Unreadable(name, error.what.removeprefix(f"{name}: ")) from error


def read_indices(data: bytes, name: str, max_megapixels: int = MAX_MEGAPIXELS) -> Integer[np.ndarray, "h w"]:
    """The values of a picture of indices (grey or palette, 8 or 16 bits)."""
    try:
        return decode.decode_mask(data, name, max_megapixels)
    except UserError as error:
        open_mask(data, name, max_megapixels)  # broken: Unreadable; else it has colours
        raise UserError(f"{error}; or check that these are the masks docs/data.md names, not coloured copies") from None


@dataclasses.dataclass(frozen=True)
class Encoding:
    """Which class each value of a mask file stands for.

    Attributes:
      meanings: gives value -> class id, or 65535 = ignore; a value that is not in it is an error. A function, so
        that a class list is not read before a mask is.
      read_values: bytes and name of a mask file, and the most that is decoded (millions of pixels) -> the value of
        each pixel; Unreadable for a broken or larger file, UserError for a file of another kind.
    """

    meanings: Callable[[], Mapping[int, int]]
    read_values: Callable[[bytes, str, int], Integer[np.ndarray, "h w"]] = read_indices

    def read(self, data: bytes, name: str, max_megapixels: int = MAX_MEGAPIXELS) -> UInt16[np.ndarray, "h w"]:
        """Class ids of a mask file, 65535 = ignore.

        Raises:
          UserError: a value has no meaning, or the file is of another kind.
          Unreadable: the file is broken or larger.
        """
        values, table = self.read_values(data, name, max_megapixels), self._table
        known = (values >= 0) & (values < len(table))
        ids = table[np.where(known, values, 0)]
        wrong = (ids == _INVALID) | ~known
        if wrong.any():
            row, column = np.argwhere(wrong)[0]
            raise UserError(
                f"{name}: value {values[row, column]} at row {row}, column {column} is none of this encoding "
                f"({_ranges(np.flatnonzero(table != _INVALID))}): check that these are the masks docs/data.md names"
            )
        return ids.astype(np.uint16)

    @functools.cached_property
    def _table(self) -> Int32[np.ndarray, " values"]:
        """Class id, 65535 or -1 (no meaning) of every value that 16 bits can hold."""
        table = np.full(2**16, _INVALID, np.int32)
        meanings = self.meanings()
        table[list(meanings)] = list(meanings.values())
        return table


def numbered(classes: int, *, first: int = 0, ignored: tuple[int, ...]) -> Encoding:
    """Encoding of indices that number the classes of the class list in its order, from `first` on."""
    return Encoding(lambda: dict.fromkeys(ignored, IGNORE) | {first + label: label for label in range(classes)})


def _ranges(values: np.ndarray) -> str:
    """Sorted numbers as "0..10, 12, 255"."""
    runs = np.split(values, np.flatnonzero(np.diff(values) > 1) + 1)
    return ", ".join(f"{run[0]}..{run[-1]}" if len(run) > 1 else f"{run[0]}" for run in runs)
