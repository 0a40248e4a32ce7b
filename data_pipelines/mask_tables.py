"""What is stored in a mask -> class ids: by colour, or by numbers other than 0, 1, 2, ..."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Int64, Integer, UInt16

from data_pipelines.decode import decode_mask, open_mask
from data_pipelines.picture_files import MAX_MEGAPIXELS
from larvseg_jax.errors import DataError, UserError

UNLABELLED_ID = 2**16 - 1
"""Class id of the pixels that a table leaves without class."""


@dataclasses.dataclass(frozen=True)
class ValueTable:
    """Values of masks -> class ids, where the class list gives the values.

    Attributes:
      values: of each class, by class id.
      ignore: value of pixels without class.
      where: file with the values, for error messages.
    """

    values: tuple[int, ...]
    ignore: int
    where: str

    def decode(self, data: bytes, name: str, max_megapixels: int = MAX_MEGAPIXELS) -> UInt16[np.ndarray, "h w"]:
        """Class ids of a mask file; DataError as decode_mask, or for a value that the list does not have."""
        return self.class_ids(decode_mask(data, name, max_megapixels, grey_in_colour=True), name)

    def class_ids(self, mask: Integer[np.ndarray, "h w"], name: str) -> UInt16[np.ndarray, "h w"]:
        """Class ids of the values of a mask; DataError for a value that the list does not have."""
        keys = np.array([*self.values, self.ignore], np.int64)
        ids = np.array([*range(len(self.values)), UNLABELLED_ID], np.uint16)
        order = np.argsort(keys, kind="stable")
        keys, ids = keys[order], ids[order]
        places = np.minimum(np.searchsorted(keys, mask), len(keys) - 1)
        wrong = keys[places] != mask
        if wrong.any():
            row, column = np.argwhere(wrong)[0]
            value = mask[row, column]
            raise DataError(
                "value",
                f"{name}: value {value} at row {row}, column {column} is none of the {len(self.values)} that "
                f"{self.where} gives its classes, nor {self.ignore} (ignore)",
                f"add it there (if it is no class: {value}: unlabelled, or {value}: background), or correct the mask",
            )
        return ids[places]


@dataclasses.dataclass(frozen=True)
class ColourTable:
    """Colours of masks -> class ids, exactly: no colour is rounded to its neighbour.

    Attributes:
      keys: ascending colours, 65536 * red + 256 * green + blue.
      class_ids: class id of each key, UNLABELLED_ID for pixels without class.
      where: file with the colours, for error messages.
      numbers: what a grey mask with other levels than the colours has may hold instead; None if nothing.
    """

    keys: Int64[np.ndarray, " colours"]
    class_ids: UInt16[np.ndarray, " colours"]
    where: str
    numbers: ValueTable | None = None

    @classmethod
    def build(
        cls, names: Sequence[str], colours: Any, ignore: Any, file: Path, values: Sequence[int] | None = None
    ) -> ColourTable:
        """Checks `colours` and `ignore` as they stand in classes.json; UserError names what is wrong.

        With `values` grey masks may hold these instead, unless one of them is also the grey of another class.
        """
        if not isinstance(colours, list) or len(colours) != len(names):
            count = len(colours) if isinstance(colours, list) else "no list of"
            raise UserError(f"{file}: {count} `colours` for {len(names)} `names`: give every class its colour")
        meaning: dict[int, tuple[str, int]] = {}
        pairs = [(name, colour, i) for i, (name, colour) in enumerate(zip(names, colours, strict=True))]
        if ignore is not None:
            pairs.append(("ignore", ignore, UNLABELLED_ID))
        for name, colour, class_id in pairs:
            if not _is_colour(colour):
                raise UserError(
                    f"{file}: the colour of {name!r} is {colour!r}: give [red, green, blue], each from 0 to 255"
                )
            other, _ = meaning.setdefault(_pack(*colour), (name, class_id))
            if other != name:
                raise UserError(f"{file}: {other!r} and {name!r} have the same colour {colour}: give each its own")
        keys = sorted(meaning)
        ids = [meaning[key][1] for key in keys]
        numbers = None
        if values is not None and all(meaning.get(_pack(v, v, v), ("", i))[1] == i for i, v in enumerate(values)):
            numbers = ValueTable(tuple(values), unused_ignore(values), str(file))
        return cls(np.array(keys, np.int64), np.array(ids, np.uint16), str(file), numbers)

    def decode(self, data: bytes, name: str, max_megapixels: int = MAX_MEGAPIXELS) -> UInt16[np.ndarray, "h w"]:
        """Class ids of a coloured mask file. Palettes are resolved to their colours, transparency is dropped.

        Raises:
          DataError: not a picture, too large, not coloured, or with a colour that no class has.
        """
        with open_mask(data, name, max_megapixels) as picture:
            mode = picture.mode
            # By way of RGBA, because Pillow warns of palettes with transparency.
            pixels = np.asarray(picture.convert("RGBA" if mode == "P" else "RGB"))[..., :3].astype(np.int64)
        if mode not in ("RGB", "RGBA", "P", "L"):
            raise DataError(
                "unreadable",
                f"{name}: {self.where} gives `colours`, but this mask is {mode}",
                "save it as an 8-bit RGB picture",
            )
        keys = _pack(pixels[..., 0], pixels[..., 1], pixels[..., 2])
        places = np.minimum(np.searchsorted(self.keys, keys), len(self.keys) - 1)
        wrong = self.keys[places] != keys
        if wrong.any() and mode == "L" and self.numbers is not None:
            return self.numbers.decode(data, name, max_megapixels)
        if wrong.any():
            row, column = np.argwhere(wrong)[0]
            raise DataError(
                "value",
                f"{name}: colour {pixels[row, column].tolist()} at row {row}, column {column} is none of the "
                f"{len(self.keys)} of {self.where} ({np.count_nonzero(wrong):,} such pixels)",
                "add it there, or export the mask without smoothed edges",
            )
        return self.class_ids[places]


def unused_ignore(values: Sequence[int]) -> int:
    """The value of pixels without class where nothing is said of it: 255, or 65535 if 255 is a class."""
    return 255 if 255 not in values and max(values, default=0) < 255 else 2**16 - 1


def _is_colour(value: Any) -> bool:
    return isinstance(value, list) and len(value) == 3 and all(type(v) is int and 0 <= v <= 255 for v in value)


def _pack(red: Any, green: Any, blue: Any) -> Any:
    return red * 65536 + green * 256 + blue
