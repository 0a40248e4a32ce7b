"""Photos with captions in a data folder, and any such photos as a source.

<folder>/images/<any path>.jpg|jpeg|png|webp|bmp|tif
<folder>/captions.json, captions.csv or captions.tsv     see caption_lists.py
<folder>/splits.json                                     {"train": [photos], "val": [photos], ...}; without it all are
                                                         "train"
"""

from __future__ import annotations

import dataclasses
import os
import unicodedata
from collections.abc import Iterable
from pathlib import Path
from typing import Protocol, SupportsIndex, runtime_checkable

from data_pipelines.caption_lists import CAPTION_LISTS, caption_list_of, read_caption_list, usable
from data_pipelines.decode import decode_image
from data_pipelines.examples import Example, RawPhoto
from data_pipelines.faults import Fault, raise_first
from data_pipelines.files import PICTURES, listed_path, read_bytes, read_json
from data_pipelines.listing import names_in_split
from data_pipelines.picture_files import MAX_MEGAPIXELS
from data_pipelines.tagged_photos import pictures_below
from larvseg_jax.errors import DataError, UserError


@runtime_checkable
class Captioned(Protocol):
    """Photos with captions, however they are stored."""

    @property
    def faults(self) -> tuple[Fault, ...]:
        """All that is wrong, as far as names tell."""
        ...

    def __len__(self) -> int:
        """Number of photos."""
        ...

    def read(self, index: SupportsIndex) -> RawPhoto:
        """One photo; DataError if it cannot be read. Safe to call from several threads."""
        ...


@dataclasses.dataclass(frozen=True)
class CaptionListing:
    """The photos of one split of a data folder that have a caption.

    Attributes:
      folder: of the pictures.
      photos: paths as seen from the folder.
      captions: of each, as they stand in the list.
      faults: all that is wrong, as far as names tell.
    """

    folder: Path
    photos: tuple[str, ...]
    captions: tuple[tuple[str, ...], ...]
    faults: tuple[Fault, ...]

    def __len__(self) -> int:
        return len(self.photos)

    def read(self, index: SupportsIndex) -> RawPhoto:
        """Reads one photo; DataError if its file cannot be read. Safe to call from several threads."""
        photo = self.photos[index]
        path = str(self.folder / photo)
        return RawPhoto(_stem(photo), path, read_bytes(path), captions=self.captions[index])


def list_captioned(folder: Path, split: str) -> CaptionListing:
    """Lists one split of a data folder. No picture is opened.

    Args:
      folder: the data folder.
      split: a key of splits.json, dots for nested objects; without that file "train".

    Raises:
      DataError: there is no such folder, or no pictures or list in it.
      UserError: the list or splits.json cannot be read, or there is no such split.
    """
    if not folder.is_dir():
        raise DataError("files", f"{folder} does not exist", "make it, with images/ and captions.json, or correct it")
    file = caption_list_of(folder)
    if file is None:
        raise DataError("files", f"{folder} has no {', '.join(CAPTION_LISTS)}", "write one of them (docs/captions.md)")
    images = folder / "images"
    if not images.is_dir():
        raise DataError("files", f"{images} does not exist", f"put the photos of {file.name} into it")
    there: dict[str, str] = {}
    faults = pictures_below(images, there)
    names = _Names(there)
    captions = read_caption_list(file, there)
    listed: dict[str, tuple[str, ...]] = {}
    missing = []
    for name, lines in captions.items():
        path = names.path(name)
        if path is None:
            missing.append(name)
        else:
            listed[path] = (*listed.get(path, ()), *lines)
    splits_file = folder / "splits.json"
    if splits_file.exists():
        chosen = _chosen(splits_file, split, names, images, faults)
    elif split != "train":
        raise UserError(f"{folder}, split {split!r}: it has no splits.json, so leave `split` at 'train', or write one")
    else:
        chosen = sorted(listed)
        faults += _missing(file, images, names, missing, len(captions))
        spare = [path for path in there if path not in listed]
        among = f"({len(spare)} of {len(there)} pictures are not listed)"
        faults += [Fault("unlisted", f"{images / path} is not in {file.name}", "", among) for path in spare]
    photos = [path for path in chosen if usable(listed.get(path, ()))]
    without = [path for path in chosen if not usable(listed.get(path, ()))]
    among = f"({len(without)} of {len(chosen)} photos)"
    faults += [Fault("no caption", f"{file}: {path!r} has no caption", "", among) for path in without]
    if not photos:
        what = f"{file}: none of the {len(chosen)} photos of split {split!r} is there with a caption"
        faults.append(Fault("files", what, f"files are given as seen from {images}: complete the two"))
    return CaptionListing(
        images, tuple(there[path] for path in photos), tuple(listed[path] for path in photos), tuple(faults)
    )


class _Names:
    """The pictures that are there by the names that lists have for them: paths whose ending may be left out."""

    def __init__(self, pictures: Iterable[str]) -> None:
        self._pictures = frozenset(pictures)
        self._by_stem = {_stem(picture): picture for picture in self._pictures}
        self._by_name = {os.path.basename(stem): picture for stem, picture in self._by_stem.items()}

    def path(self, name: str) -> str | None:
        """The picture that a list calls so; None if there is none."""
        name = unicodedata.normalize("NFC", listed_path(name))
        return name if name in self._pictures else self._by_stem.get(name)

    def like(self, name: str) -> str | None:
        """The picture of the same name with another ending, or in another folder."""
        stem = _stem(unicodedata.normalize("NFC", listed_path(name)))
        return self._by_stem.get(stem) or self._by_name.get(os.path.basename(stem))


def _chosen(file: Path, split: str, names: _Names, images: Path, faults: list[Fault]) -> list[str]:
    """The photos of a split that are there, in its order."""
    listed = names_in_split(read_json(file), split, file, faults)
    found = {name: names.path(name) for name in listed}
    missing = [name for name, path in found.items() if path is None]
    among = f"({len(missing)} of {len(listed)} files missing)"
    for name in missing:
        meant = names.like(name)
        remedy = f"write {meant!r}" if meant else f"add it or take it out of {file}"
        faults.append(Fault("files", f"{file}: there is no {images / name}", remedy, among))
    return list(dict.fromkeys(path for path in found.values() if path is not None))


def _missing(file: Path, images: Path, names: _Names, missing: list[str], count: int) -> list[Fault]:
    """A fault for every photo of the list that is not there; of addresses in the web one says how many are."""
    if not missing:
        return []
    there = count - len(missing)
    if file.suffix == ".tsv":
        first = f"{', '.join(missing[:3])}{', ...' if len(missing) > 3 else ''}"
        what = f"{images} holds {there:,} of the {count:,} pictures of {file.name}, and not {first}"
        return [Fault("not downloaded", what)]
    among = f"({len(missing)} of {count} files missing)"
    faults = []
    for name in missing:
        meant = names.like(name)
        remedy = f"files are given as seen from {images}: write {meant!r}" if meant else "add or unlist it"
        faults.append(Fault("files", f"{file}: there is no {images / name}", remedy, among))
    return faults


def _stem(path: str) -> str:
    """A path without the ending of a picture."""
    stem, ending = os.path.splitext(path)
    return stem if ending.lower() in PICTURES else path


class CaptionSource:
    """Photos with captions as a random-access source of Examples.

    Args:
      photos: of a folder, of shards or of a prepared data set.
      max_megapixels: the largest photo that is decoded, millions of pixels.

    Raises:
      DataError: what is wrong with them stops a run.
    """

    def __init__(self, photos: Captioned, max_megapixels: int = MAX_MEGAPIXELS) -> None:
        raise_first(photos.faults)
        self._photos, self._max_megapixels = photos, max_megapixels

    def __len__(self) -> int:
        return len(self._photos)

    def __getitem__(self, index: SupportsIndex) -> Example:
        photo = self._photos.read(index)
        captions = usable(photo.captions)
        if not captions:
            raise DataError("no caption", f"{photo.image_name}: no caption", "add one, or take the photo out")
        image = decode_image(photo.image, photo.image_name, self._max_megapixels)
        return {"id": photo.id, "image": image, "captions": captions}
