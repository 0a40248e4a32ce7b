"""The photos that a source names, whichever way they are stored."""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Integer, UInt8

from data_pipelines.class_folders import unknown_folders
from data_pipelines.class_listing import class_name, list_class_folders
from data_pipelines.decode import decode_image, decode_mask
from data_pipelines.examples import RawPhoto, Reads
from data_pipelines.faults import Fault
from data_pipelines.folder_classes import FolderClasses
from data_pipelines.listing import list_folder
from data_pipelines.mask_evidence import mask_faults
from data_pipelines.picture_files import MAX_MEGAPIXELS
from data_pipelines.prepared import IGNORE, open_prepared, read_metadata
from data_pipelines.sources import SourceConfig, open_captioned
from data_pipelines.tagged_photos import list_tagged, unknown_tags
from larvseg_jax.vocabulary import LabelSet


@dataclasses.dataclass(frozen=True)
class PhotoSet:
    """The photos of one split.

    Attributes:
      kind: "prepared", "folder", "class folders", "tagged photos" or "shards".
      directory: where they lie.
      names: class names of the data set, by class id.
      ignore: mask value without class.
      classes: the class list of a folder with masks; None elsewhere.
      count: number of photos that can be read as far as names tell.
      read: photo by number; DataError if its bytes cannot be had. Safe to call from several threads.
      faults: what is wrong without any picture being opened.
      metadata: of a prepared set, see data_pipelines.builders; {} elsewhere.
      max_megapixels: the largest picture that is decoded, millions of pixels.
      stored_bytes: of the prepared set with all its splits; None where files would have to be counted.
    """

    kind: str
    directory: Path
    names: tuple[str, ...]
    ignore: int | None
    count: int
    read: Callable[[int], RawPhoto]
    faults: tuple[Fault, ...] = ()
    metadata: dict[str, Any] = dataclasses.field(default_factory=dict)
    stored_bytes: int | None = None
    classes: FolderClasses | None = None
    max_megapixels: int = MAX_MEGAPIXELS

    @property
    def has_splits(self) -> bool:
        """Whether it is a part of a set with several splits."""
        return self.kind in ("prepared", "folder", "shards")

    def decode_image(self, photo: RawPhoto) -> UInt8[np.ndarray, "h w 3"]:
        """The picture of a photo; DataError if it cannot be read."""
        return decode_image(photo.image, photo.image_name, self.max_megapixels)

    def decode_mask(self, photo: RawPhoto) -> Integer[np.ndarray, "h w"]:
        """Class ids of its mask; DataError if it cannot be read."""
        assert photo.mask is not None
        decode = self.classes.decode if self.classes else decode_mask
        return decode(photo.mask, photo.mask_name, self.max_megapixels)


def open_photo_set(source: SourceConfig, data_root: Path, label_set: LabelSet, reads: Reads) -> PhotoSet:
    """Opens what a source names, for a stream that knows the classes `label_set`.

    Raises:
      UserError: there is nothing to list.
    """
    directory, masks, tags = source.location(data_root), reads == "masks", reads == "tags"
    if reads == "captions":
        return _captioned(source, directory)
    if source.tfds:
        return _prepared(directory, source.split, masks)
    if source.folder:
        return _folder(directory, source.split, masks, tags)
    return _class_folders(directory, label_set) if source.class_folders else _tagged(directory, label_set)


def plain_split(split: str) -> str:
    """The split of "train[:10%]"."""
    return re.split(r"[\[+]", split)[0]


def _prepared(directory: Path, split: str, masks: bool) -> PhotoSet:
    prepared = open_prepared(directory, split, masks=masks)
    return PhotoSet(
        kind="prepared",
        directory=directory,
        names=prepared.names,
        ignore=IGNORE,
        count=len(prepared),
        read=prepared.read,
        faults=prepared.faults,
        metadata=read_metadata(directory),
        stored_bytes=sum(file.stat().st_size for file in directory.iterdir() if file.is_file()),
    )


def _folder(directory: Path, split: str, masks: bool, tags: bool) -> PhotoSet:
    listing = list_folder(directory, split, masks=masks, tags=tags)
    classes = listing.classes
    return PhotoSet(
        "folder",
        directory,
        classes.names,
        classes.ignore,
        len(listing),
        listing.read,
        (*listing.faults, *mask_faults(listing.masks or (), classes, directory / "masks")),
        classes=classes,
    )


def _captioned(source: SourceConfig, directory: Path) -> PhotoSet:
    photos = open_captioned(source, directory)
    kind = "prepared" if source.tfds else "folder" if source.folder else "shards"
    metadata = read_metadata(directory) if source.tfds else {}
    return PhotoSet(kind, directory, (), None, len(photos), photos.read, photos.faults, metadata)


def _class_folders(directory: Path, label_set: LabelSet) -> PhotoSet:
    listing = list_class_folders(directory)
    names = tuple(class_name(folder) for folder in listing.folders)
    faults = (*listing.faults, *unknown_folders(directory, listing.folders, label_set))
    return PhotoSet("class folders", directory, names, None, len(listing), listing.read, faults)


def _tagged(directory: Path, label_set: LabelSet) -> PhotoSet:
    listing = list_tagged(directory)
    faults = (*listing.faults, *unknown_tags(listing, label_set))
    return PhotoSet("tagged photos", directory, listing.names, None, len(listing), listing.read, faults)
