"""Data sets with one mask file per photo: the layout of a download is found, its files are matched and read."""

from __future__ import annotations

import dataclasses
import functools
import io
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import ClassVar, NamedTuple

import numpy as np
from jaxtyping import UInt16
from PIL import Image

from data_pipelines.builders.download_builder import DownloadBuilder, Piece, each, in_pieces, read_file
from data_pipelines.builders.layouts import Layout, SplitFiles
from data_pipelines.builders.records import Photo, Unreadable
from data_pipelines.orientation import turned_mask
from larvseg_jax.console import first_few
from larvseg_jax.errors import UserError


@dataclasses.dataclass(frozen=True)
class MaskedPhotos:
    """A piece: photos of one split, as (id, photo, mask), the files relative to `base`."""

    layout: str
    base: Path
    files: tuple[tuple[str, str, str], ...]


class _Download(NamedTuple):
    """A layout, the folder that has it, and those of its splits whose files are there."""

    layout: Layout
    base: Path
    splits: dict[str, SplitFiles]


class MaskBuilder(DownloadBuilder):
    """Builder of a data set with one mask file per photo.

    Subclasses give LAYOUTS and FOLDERS. The layout that has most splits is taken, of several the first. A split
    whose files are not there is left out: evaluation needs no training photos.
    """

    LAYOUTS: ClassVar[tuple[Layout, ...]]
    FOLDERS: ClassVar[tuple[str, ...]]
    """Names under which the data set's folder may lie in the one the user gave; first fit counts."""
    PHOTOS_PER_PIECE: ClassVar[int] = 300

    def layout(self, root: Path) -> str:
        """Name of the layout found; UserError with those that were looked for if there is none."""
        return self._find(root).layout.name

    def pieces(self, root: Path) -> dict[str, Sequence[Piece]]:
        """Split -> photos with their masks, by name; UserError where the two do not match."""
        layout, base, splits = self._find(root)
        return {
            split: [
                MaskedPhotos(layout.name, base, tuple(group))
                for group in in_pieces(files.match(base), self.PHOTOS_PER_PIECE)
            ]
            for split, files in splits.items()
        }

    def photos(self, piece: MaskedPhotos) -> Iterator[Photo | Unreadable]:
        """The photos of a piece with their masks."""
        (layout,) = (layout for layout in self.LAYOUTS if layout.name == piece.layout)
        return each(functools.partial(_read, layout, piece.base, self.max_megapixels), piece.files)

    def remarks(self, root: Path) -> list[str]:
        """Folders that are passed over, and splits whose files are not here."""
        _, base, splits = self._find(root)
        passed_over = sorted({folder for files in splits.values() for folder in files.passed_over(base)})
        lines = [f"folders of other programs passed over: {first_few(passed_over, 3)}"] if passed_over else []
        return lines + [f"no split {split!r}, its files are not here" for split in self.EXPECTED if split not in splits]

    def _find(self, root: Path) -> _Download:
        best: _Download | None = None
        for base in (root, *(root / folder for folder in self.FOLDERS)):
            for layout in self.LAYOUTS:
                splits = {split: files for split, files in layout.splits.items() if files.are_in(base)}
                if splits and (best is None or len(splits) > len(best.splits)):
                    best = _Download(layout, base, splits)
        if best is None:
            examples = "; ".join(str(layout.splits["val"]) for layout in self.LAYOUTS)
            raise UserError(
                f"{root}: no layout of {self.CLASS_LIST} that is known, neither here nor in "
                f"{' or '.join(self.FOLDERS)} (looked, for instance, for {examples}): "
                "give the folder that holds these, see docs/data.md"
            )
        return best


def _read(layout: Layout, base: Path, max_megapixels: int, files: tuple[str, str, str]) -> Photo:
    """One photo with its mask; Unreadable if a file is broken, UserError for a mask of another encoding."""
    photo, photo_file, mask_file = files
    image = read_file(base / photo_file)
    mask = layout.encoding.read(read_file(base / mask_file), str(base / mask_file), max_megapixels)
    return Photo(photo, image, turned_with(image, mask), file=str(base / photo_file))


def turned_with(image: bytes, mask: UInt16[np.ndarray, "h w"]) -> UInt16[np.ndarray, "turned_h turned_w"]:
    """The mask turned with its photo (orientation.py), of which only the header is read."""
    try:
        with Image.open(io.BytesIO(image)) as picture:
            height, width = picture.height, picture.width
    except Exception:  # a broken photo, which is reported when it is decoded
        return mask
    if mask.shape != (height, width):
        return mask
    return turned_mask(mask, (width, height), image)
