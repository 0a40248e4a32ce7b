"""Data sets with one mask file a photo: finding the layout of a download, matching its files, reading them."""

from __future__ import annotations

import dataclasses
import functools
import io
import os
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from pathlib import Path, PurePosixPath
from typing import ClassVar

import numpy as np
from jaxtyping import Int32, Integer, UInt16
from PIL import Image

from data_pipelines.builders.layout import LayoutBuilder, Piece, each, in_pieces, read_file
from data_pipelines.builders.records import IGNORE, Photo, Unreadable
from data_pipelines.decode import decode_mask
from larvseg_jax.errors import UserError

_INVALID = -1  # in a table: a value that the encoding gives no meaning to
_ORIENTATION = 0x0112  # the EXIF tag
_TURNS: Mapping[int, Callable[[np.ndarray], np.ndarray]] = {  # those that swap the sides
    5: lambda mask: mask.T,
    6: lambda mask: np.rot90(mask, -1),
    7: lambda mask: np.rot90(mask, 2).T,
    8: lambda mask: np.rot90(mask),
}


@dataclasses.dataclass(frozen=True)
class Where:
    """Where the files of one split lie; folders and files relative to the data set's folder.

    Attributes:
      photos: folder of the photos, folders in it included; of several the first that has any counts.
      masks: folders of the masks, folders in them included; for each photo the first that has its mask counts.
      photo_suffix, mask_suffix: what follows the photo's name in the names of the two files.
      lists: files with one photo's name a line; the first that exists counts. Without any, all photos and masks
        of the folders must match.
      besides: endings of other files that lie among the masks.
    """

    photos: tuple[str, ...]
    masks: tuple[str, ...]
    photo_suffix: str = ".jpg"
    mask_suffix: str = ".png"
    lists: tuple[str, ...] = ()
    besides: tuple[str, ...] = ()

    def __str__(self) -> str:
        listed = f" and {' or '.join(self.lists)}" if self.lists else ""
        photos = " or ".join(self.photos)
        return f"{photos}/*{self.photo_suffix} with {' or '.join(self.masks)}/*{self.mask_suffix}{listed}"


@dataclasses.dataclass(frozen=True)
class Layout:
    """One way the files of a data set can lie on disk.

    Attributes:
      name: for messages and metadata.json.
      splits: where each split is.
      read: bytes and name of a mask file -> class ids, 65535 = ignore; UserError for values that are none,
        Unreadable for a broken file.
    """

    name: str
    splits: Mapping[str, Where]
    read: Callable[[bytes, str], UInt16[np.ndarray, "h w"]]


@dataclasses.dataclass(frozen=True)
class Pairs:
    """A piece: photos of one split, as (id, photo, mask), the files relative to `base`."""

    layout: str
    base: Path
    files: tuple[tuple[str, str, str], ...]


class MaskBuilder(LayoutBuilder):
    """Builder of a data set with one mask file a photo.

    Subclasses give LAYOUTS. The layout that has most splits is taken, of several the first. A split whose
    files are not there is left out: evaluation needs no training photos.
    """

    LAYOUTS: ClassVar[tuple[Layout, ...]]
    FOLDERS: ClassVar[tuple[str, ...]]
    """Names under which the data set's folder may lie in the one the user gave; first fit counts."""
    PHOTOS_PER_PIECE: ClassVar[int] = 300

    def layout(self, root: Path) -> str:
        """Name of the layout found; UserError with those that were looked for if there is none."""
        return self._find(root)[0].name

    def pieces(self, root: Path) -> dict[str, Sequence[Piece]]:
        """Split -> photos with their masks, by name; UserError where the two do not match."""
        layout, base, splits = self._find(root)
        return {
            split: [
                Pairs(layout.name, base, tuple(files))
                for files in in_pieces(_match(base, where), self.PHOTOS_PER_PIECE)
            ]
            for split, where in splits.items()
        }

    def photos(self, piece: Pairs) -> Iterator[Photo | Unreadable]:
        """The photos of a piece with their masks."""
        (layout,) = (layout for layout in self.LAYOUTS if layout.name == piece.layout)
        return each(functools.partial(_read, layout, piece.base), piece.files)

    def remarks(self, root: Path) -> list[str]:
        splits = self._find(root)[2]
        return [f"no split {split!r}, its files are not here" for split in self.EXPECTED if split not in splits]

    def _find(self, root: Path) -> tuple[Layout, Path, dict[str, Where]]:
        best: tuple[Layout, Path, dict[str, Where]] | None = None
        for base in (root, *(root / folder for folder in self.FOLDERS)):
            for layout in self.LAYOUTS:
                splits = {split: where for split, where in layout.splits.items() if _is_there(base, where)}
                if splits and (best is None or len(splits) > len(best[2])):
                    best = layout, base, splits
        if best is None:
            looked = "; ".join(str(layout.splits["val"]) for layout in self.LAYOUTS)
            raise UserError(
                f"{root}: no layout of {self.CLASS_LIST} that is known, neither here nor in "
                f"{' or '.join(self.FOLDERS)} (looked, for instance, for {looked}): "
                "give the folder that holds these, see docs/data.md"
            )
        return best


def value_table(classes: Mapping[int, int], ignore: Iterable[int]) -> Int32[np.ndarray, " values"]:
    """(65536,) class id of every value a mask can have: 65535 for those of `ignore`, -1 where it has no meaning."""
    table = np.full(2**16, _INVALID, np.int32)
    table[list(ignore)] = IGNORE
    table[list(classes)] = list(classes.values())
    return table


def class_ids(
    values: Integer[np.ndarray, "h w"], table: Int32[np.ndarray, " values"], name: str
) -> UInt16[np.ndarray, "h w"]:
    """Class ids of a mask's values; UserError with the first that has no meaning."""
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


def indexed(data: bytes, name: str, table: Int32[np.ndarray, " values"]) -> UInt16[np.ndarray, "h w"]:
    """Class ids of a picture of indices (grey or palette, 8 or 16 bits)."""
    try:
        values = decode_mask(data, name)
    except UserError as error:
        decode(data, name)  # broken: Unreadable; else it has colours
        raise UserError(f"{error}; or check that these are the masks docs/data.md names, not coloured copies") from None
    return class_ids(values, table, name)


def decode(data: bytes, name: str) -> Image.Image:
    """A mask file as Pillow reads it; Unreadable if it cannot."""
    try:
        picture = Image.open(io.BytesIO(data))
        picture.load()
    except Exception as error:  # whatever Pillow's plugins trip over: OSError, SyntaxError, struct.error, ...
        raise Unreadable(name, f"no readable mask: {error}") from error
    return picture


def _ranges(values: np.ndarray) -> str:
    """Sorted numbers as "0..10, 12, 255"."""
    runs = np.split(values, np.flatnonzero(np.diff(values) > 1) + 1)
    return ", ".join(f"{run[0]}..{run[-1]}" if len(run) > 1 else f"{run[0]}" for run in runs)


def _files(folder: Path, suffix: str, besides: tuple[str, ...] = ()) -> Iterator[str]:
    """Relative names, without the suffix, of a folder's files that end in it; in no order."""
    for parent, folders, files in os.walk(folder, followlinks=True):
        beside = set(files)  # ADE20K keeps the instances of X.jpg in a folder X: hundreds of thousands of files
        folders[:] = [name for name in folders if name + suffix not in beside]
        below = Path(parent).relative_to(folder).as_posix()
        for name in files:
            if name.endswith(suffix) and not name.endswith(besides) and not name.startswith("."):
                yield (name if below == "." else f"{below}/{name}").removesuffix(suffix)


def _photo_folder(base: Path, where: Where) -> str | None:
    """The first folder that has photos."""
    return next((folder for folder in where.photos if any(_files(base / folder, where.photo_suffix))), None)


def _is_there(base: Path, where: Where) -> bool:
    """Whether there is a photo, a mask and, if need be, a list."""
    if where.lists and not any((base / name).is_file() for name in where.lists):
        return False
    masks = any(any(_files(base / folder, where.mask_suffix, where.besides)) for folder in where.masks)
    return masks and _photo_folder(base, where) is not None


def _match(base: Path, where: Where) -> list[tuple[str, str, str]]:
    """(id, photo, mask) of all photos of a split by name; UserError if one of the two is missing or an id repeats."""
    folder = _photo_folder(base, where)
    photos = set(_files(base / str(folder), where.photo_suffix))
    masks: dict[str, str] = {}
    for masks_folder in reversed(where.masks):
        masks |= dict.fromkeys(_files(base / masks_folder, where.mask_suffix, where.besides), masks_folder)
    listing = next((base / name for name in where.lists if (base / name).is_file()), None)
    if listing:
        names = sorted({line.strip() for line in listing.read_text("utf-8").splitlines()} - {""})
        why, without_photo = f"which is in {listing}", [name for name in names if name not in photos]
    else:
        names, why, without_photo = sorted(photos), "which has a mask", sorted(masks.keys() - photos)
    if without_photo:
        raise UserError(
            f"{base / str(folder)}: {len(without_photo)} photos are missing, the first is "
            f"{without_photo[0]}{where.photo_suffix}, {why}: unpack the photos anew"
        )
    without_mask = [name for name in names if name not in masks]
    if without_mask:
        raise UserError(
            f"{' and '.join(str(base / masks_folder) for masks_folder in where.masks)}: {len(without_mask)} masks are "
            f"missing, the first is {without_mask[0]}{where.mask_suffix}: unpack (or convert) the masks anew"
        )
    found: dict[str, tuple[str, str, str]] = {}
    for name in names:
        photo, mask = f"{folder}/{name}{where.photo_suffix}", f"{masks[name]}/{name}{where.mask_suffix}"
        other = found.setdefault(PurePosixPath(name).name, (PurePosixPath(name).name, photo, mask))
        if other[1] != photo:
            raise UserError(f"{base / photo}: {base / other[1]} has the same name: take one of the two out")
    return list(found.values())


def _read(layout: Layout, base: Path, files: tuple[str, str, str]) -> Photo:
    """One photo with its mask; Unreadable if a file is broken, UserError for a mask of another encoding."""
    photo, photo_file, mask_file = files
    image = read_file(base / photo_file)
    mask = layout.read(read_file(base / mask_file), str(base / mask_file))
    return Photo(photo, image, _turned(mask, image), file=str(base / photo_file))


def _turned(mask: UInt16[np.ndarray, "h w"], image: bytes) -> UInt16[np.ndarray, "turned_h turned_w"]:
    """The mask turned with its photo, which readers turn as its EXIF tag says, if it fits the photo as stored only.

    `Original:` turns the photo alone. Flips and half turns cannot be told by the sizes and stay so here.
    """
    try:
        with Image.open(io.BytesIO(image)) as picture:
            turn, stored = _TURNS.get(picture.getexif().get(_ORIENTATION, 1)), (picture.height, picture.width)
    except Exception:  # a broken photo: whoever decodes it says so
        return mask
    if turn is None or mask.shape != stored or stored[0] == stored[1]:
        return mask
    return np.ascontiguousarray(turn(mask))
