"""Photos with captions of one's own, or of the web: a data folder or .tar shards (docs/captions.md)."""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, ClassVar

import tensorflow_datasets as tfds

from data_pipelines.builders.download_builder import DownloadBuilder, Piece, each
from data_pipelines.builders.records import Photo, Unreadable
from data_pipelines.caption_lists import caption_list_of, usable
from data_pipelines.caption_shards import ShardListing, look_through
from data_pipelines.captioned_photos import Captioned, CaptionListing, list_captioned
from data_pipelines.faults import raise_first
from data_pipelines.files import read_json
from data_pipelines.listing import split_names
from larvseg_jax.errors import DataError, UserError


@dataclasses.dataclass(frozen=True)
class Listed:
    """A piece: so many photos of a split of a data folder."""

    root: Path
    split: str
    first: int
    count: int


class Captions(DownloadBuilder):
    """Photos with captions.

    The same photos and captions as the folder or shards have; a photo without a caption is left out and listed.
    """

    name = "captions"
    MASKS: ClassVar[bool] = False
    EXPECTED: ClassVar[dict[str, int]] = {}
    PHOTOS_PER_PIECE: ClassVar[int] = 1000

    def layout(self, root: Path) -> str:
        """The list of captions, or how many shards there are; UserError if there is neither."""
        file = caption_list_of(root)
        if file is not None:
            return f"photos with {file.name}"
        return f"{sum(map(len, _shards(root).values()))} shards"

    def pieces(self, root: Path) -> dict[str, Sequence[Piece]]:
        """Split -> runs of photos, or shards. UserError where files do not fit."""
        if caption_list_of(root) is None:
            return dict(_shards(root))
        file = root / "splits.json"
        splits = [name for name in split_names(read_json(file)) if "." not in name] if file.exists() else ["train"]
        found: dict[str, Sequence[Piece]] = {}
        for split in splits:
            listing = _listing(root, split)
            raise_first(listing.faults)
            firsts = range(0, len(listing), self.PHOTOS_PER_PIECE)
            found[split] = [
                Listed(root, split, first, min(self.PHOTOS_PER_PIECE, len(listing) - first)) for first in firsts
            ]
        return found

    def photos(self, piece: Listed | Path) -> Iterator[Photo | Unreadable]:
        """The photos of a piece with their captions."""
        listing: Captioned
        if isinstance(piece, Listed):
            listing = _listing(piece.root, piece.split)
            numbers, where = range(piece.first, piece.first + piece.count), piece.root
            faults = listing.faults if piece.first == 0 else ()
        else:
            shard = look_through(piece)
            listing, faults, where = ShardListing([shard], shard.faults), shard.faults, piece
            numbers = range(len(shard.keys))
        yield from each(functools.partial(_photo, listing), numbers)
        for fault in faults:
            if fault.kind in ("no caption", "unreadable"):
                yield Unreadable(where, fault.what.removeprefix(f"{where}: "))

    def remarks(self, root: Path) -> list[str]:
        """What of the list was not downloaded."""
        if caption_list_of(root) is None or (root / "splits.json").exists():
            return []
        return [fault.what for fault in _listing(root, "train").faults if fault.kind == "not downloaded"]

    @property
    def class_count(self) -> int:
        """There are no classes."""
        return 0

    def _labels(self) -> dict[str, Any]:
        return {"captions": tfds.features.Sequence(tfds.features.Text())}


@functools.lru_cache(maxsize=4)  # of a folder with millions of photos it takes a minute
def _listing(root: Path, split: str) -> CaptionListing:
    return list_captioned(root, split)


def _shards(root: Path) -> dict[str, list[Path]]:
    """Split -> its shards, in order."""
    here = sorted(root.glob("*.tar"))
    if here:
        return {"train": here}
    found = {folder.name: sorted(folder.glob("*.tar")) for folder in sorted(root.iterdir()) if folder.is_dir()}
    found = {split: files for split, files in found.items() if files}
    if not found:
        raise UserError(f"{root}: neither captions.json, .csv or .tsv nor .tar shards: see docs/captions.md")
    return found


def _photo(listing: Captioned, number: int) -> Photo:
    """One photo; Unreadable if it or its captions cannot be read."""
    try:
        photo = listing.read(number)
    except DataError as error:
        raise Unreadable(error.what.partition(": ")[0], error.what.partition(": ")[2]) from error
    captions = usable(photo.captions)
    if not captions:
        raise Unreadable(photo.image_name, "no caption")
    return Photo(photo.id, photo.image, None, file=photo.image_name, captions=captions)
