"""The class list of a data folder: what the values, or the colours, of its masks mean."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Int64, UInt16

from data_pipelines.decode import open_mask
from data_pipelines.files import read_bytes, read_json
from data_pipelines.picture_files import MAX_MEGAPIXELS
from larvseg_jax.errors import DataError, UserError

COLOUR_IGNORE = 2**16 - 1
"""Class id of the pixels that a coloured mask leaves without class."""


@dataclasses.dataclass(frozen=True)
class FolderClasses:
    """Classes of a data folder.

    Attributes:
      names: class names by class id.
      ignore: class id of pixels without class, None if there is none.
      colours: the colours of the masks; None where masks hold class ids.
      file: where this was read.
    """

    names: tuple[str, ...]
    ignore: int | None
    colours: ColourTable | None
    file: Path


def read_classes(folder: Path) -> FolderClasses:
    """The classes of a data folder: those of classes.json, or, where there is none, of classes.txt.

    classes.txt has one name per line: the first is mask value 0, the next 1, and so on; 255 is ignored
    (65535 where there are more than 255 names).
    classes.json has {"names": [...]} in the same order; optionally "ignore", the value of pixels without
    class, and "colours" ("colors"), one [red, green, blue] per name for masks that are coloured pictures; the value
    of "ignore" is then a colour as well.

    Raises:
      UserError: no list, or one that is wrong.
    """
    file = folder / "classes.json"
    if file.exists():
        return _from_json(file)
    file = folder / "classes.txt"
    if not file.exists():
        raise UserError(
            f"{folder} has neither classes.json nor classes.txt: write classes.txt, one class name per line in the "
            "order of the mask values 0, 1, 2, ..."
        )
    return _from_text(file)


def _from_text(file: Path) -> FolderClasses:
    try:
        text = read_bytes(file).decode("utf-8-sig")  # Windows editors put a byte order mark first
    except UnicodeDecodeError as error:
        raise UserError(f"{file}: byte {error.start} is not UTF-8: save it in that encoding") from error
    names = [line.strip() for line in text.rstrip().splitlines()]
    if not text.strip():
        raise UserError(f"{file} is empty: write one class name per line, in the order of the mask values 0, 1, 2, ...")
    if "" in names:
        raise UserError(
            f"{file}: line {names.index('') + 1} is empty and would be mask value {names.index('')}: name it"
        )
    return FolderClasses(tuple(names), 255 if len(names) <= 255 else 2**16 - 1, None, file)


def _from_json(file: Path) -> FolderClasses:
    content = read_json(file)
    names, ignore = content.get("names"), content.get("ignore")
    if not isinstance(names, list) or not names or not all(isinstance(n, str) for n in names):
        raise UserError(f"{file}: `names` must be the list of class names, in the order of the mask values")
    colours = content.get("colours", content.get("colors"))
    if colours is not None:
        table = ColourTable.build(names, colours, ignore, file)
        return FolderClasses(tuple(names), COLOUR_IGNORE, table, file)
    if ignore is not None and not (isinstance(ignore, int) and 0 <= ignore < 2**16):
        raise UserError(f"{file}: `ignore` is {ignore!r}: give a mask value from 0 to 65535, or leave it out")
    return FolderClasses(tuple(names), ignore, None, file)


@dataclasses.dataclass(frozen=True)
class ColourTable:
    """Colours of masks -> class ids, exactly: no colour is rounded to its neighbour.

    Attributes:
      keys: ascending colours, 65536 * red + 256 * green + blue.
      class_ids: class id of each key, COLOUR_IGNORE for pixels without class.
      where: file with the colours, for error messages.
    """

    keys: Int64[np.ndarray, " colours"]
    class_ids: UInt16[np.ndarray, " colours"]
    where: str

    @classmethod
    def build(cls, names: Sequence[str], colours: Any, ignore: Any, file: Path) -> ColourTable:
        """Checks `colours` and `ignore` as they stand in classes.json; UserError names what is wrong."""
        if not isinstance(colours, list) or len(colours) != len(names):
            count = len(colours) if isinstance(colours, list) else "no list of"
            raise UserError(f"{file}: {count} `colours` for {len(names)} `names`: give every class its colour")
        meaning: dict[int, tuple[str, int]] = {}
        pairs = [(name, colour, i) for i, (name, colour) in enumerate(zip(names, colours, strict=True))]
        if ignore is not None:
            pairs.append(("ignore", ignore, COLOUR_IGNORE))
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
        return cls(np.array(keys, np.int64), np.array(ids, np.uint16), str(file))

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
        if wrong.any():
            row, column = np.argwhere(wrong)[0]
            raise DataError(
                "value",
                f"{name}: colour {pixels[row, column].tolist()} at row {row}, column {column} is none of the "
                f"{len(self.keys)} of {self.where} ({np.count_nonzero(wrong):,} such pixels)",
                "add it there, or export the mask without smoothed edges",
            )
        return self.class_ids[places]


def _is_colour(value: Any) -> bool:
    return isinstance(value, list) and len(value) == 3 and all(type(v) is int and 0 <= v <= 255 for v in value)


def _pack(red: Any, green: Any, blue: Any) -> Any:
    return red * 65536 + green * 256 + blue
