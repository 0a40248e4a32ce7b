"""Tagged photos with their tags in a list (tag_lists.py): several tags a photo are the plain case.

<folder>/tags.csv or tags.json
<folder>/<any path>.jpg|jpeg|png|webp|bmp|tif
"""

from __future__ import annotations

import dataclasses
import difflib
import os
import unicodedata
from pathlib import Path
from typing import SupportsIndex

import numpy as np
from jaxtyping import Int32

from data_pipelines.decode import decode_image
from data_pipelines.examples import Example, RawPhoto
from data_pipelines.faults import Fault, raise_first
from data_pipelines.files import PICTURES, entries, is_folder, leads_nowhere, read_bytes
from data_pipelines.picture_files import MAX_MEGAPIXELS
from data_pipelines.tag_lists import LISTS, read_tag_list, tag_list_of
from larvseg_jax.errors import DataError, UserError
from larvseg_jax.vocabulary import LabelSet


@dataclasses.dataclass(frozen=True)
class TaggedListing:
    """The photos of a list, ordered by their paths.

    Attributes:
      folder: where they lie.
      file: the list.
      names: of all classes that are tags, sorted; a class id is a place here.
      photos: paths as seen from the folder.
      tags: class ids of each.
      faults: all that is wrong, as far as names tell.
    """

    folder: Path
    file: Path
    names: tuple[str, ...]
    photos: tuple[str, ...]
    tags: tuple[tuple[int, ...], ...]
    faults: tuple[Fault, ...]

    def __len__(self) -> int:
        return len(self.photos)

    @property
    def most_tags(self) -> int:
        """Tags of the photo that has most."""
        return max(map(len, self.tags), default=0)

    def read(self, index: SupportsIndex) -> RawPhoto:
        """Reads one photo; DataError if its file cannot be read. Safe to call from several threads."""
        photo = self.photos[index]
        path = str(self.folder / photo)
        return RawPhoto(photo, path, read_bytes(path), tags=self.tags[index])


def list_tagged(folder: Path) -> TaggedListing:
    """Lists a folder of tagged photos. No picture is opened.

    Raises:
      DataError: there is no such folder or no list in it, or the folder cannot be listed.
      UserError: the list cannot be read.
    """
    if not folder.is_dir():
        raise DataError("files", f"{folder} does not exist", "make it, with pictures and their tags.csv, or correct it")
    file = tag_list_of(folder)
    if file is None:
        raise DataError("files", f"{folder} has no {' or '.join(LISTS)}", "write one: file,tags and a line a photo")
    tags, faults = read_tag_list(file)
    there: dict[str, str] = {}  # composed, as in the list -> as on the disk
    faults += pictures_below(folder, there, LISTS)
    listed = {unicodedata.normalize("NFC", photo): names for photo, names in tags.items()}
    missing = [photo for photo in listed if photo not in there]
    among = f"({len(missing)} of {len(listed)} files missing)"
    by_name = {os.path.basename(photo): photo for photo in there}
    for photo in missing:
        meant = by_name.get(os.path.basename(photo))
        remedy = f"files are given as seen from {folder}: write {meant!r}" if meant else "add or unlist it"
        faults.append(Fault("files", f"{file}: there is no {folder / photo}", remedy, among))
    spare = [photo for photo in there if photo not in listed]
    among = f"({len(spare)} of {len(there)} pictures are not listed)"
    faults += [Fault("unlisted", f"{folder / photo} is not in {file.name}", "", among) for photo in spare]
    if not tags:
        faults.append(Fault("files", f"{file} lists no photo", "write a line for each: file,tags"))
    photos = sorted(photo for photo in listed if photo in there and listed[photo])
    names = sorted({name for photo in photos for name in listed[photo]})
    ids = {name: i for i, name in enumerate(names)}
    return TaggedListing(
        folder=folder,
        file=file,
        names=tuple(names),
        photos=tuple(there[photo] for photo in photos),
        tags=tuple(tuple(sorted(ids[name] for name in listed[photo])) for photo in photos),
        faults=tuple(faults),
    )


def pictures_below(
    folder: Path,
    found: dict[str, str],
    lists: tuple[str, ...] = (),
    inside: str = "",
    above: tuple[str, ...] = (),
) -> list[Fault]:
    """Adds the pictures in a folder and those below it to `found`; returns what is wrong.

    Args:
      folder: the folder.
      found: path in composed characters -> path as it is on the disk, both as seen from the first folder.
      lists: files of the first folder that are no fault.
      inside: path of the folder, with a slash behind, as seen from the first one.
      above: folders it is in; a link that leads back to one of them is not followed.
    """
    faults: list[Fault] = []
    if os.path.realpath(folder) in above:
        return faults
    above = (*above, os.path.realpath(folder))
    for entry in sorted(entries(folder), key=lambda entry: entry.name):
        path = f"{inside}{entry.name}"
        if leads_nowhere(entry):
            faults.append(Fault("files", f"{entry.path} is a link that leads nowhere", "mend or remove it"))
        elif is_folder(entry):
            faults += pictures_below(Path(entry.path), found, lists, f"{path}/", above)
        elif os.path.splitext(entry.name)[1].lower() in PICTURES:
            found[unicodedata.normalize("NFC", path)] = path
        elif path not in lists:
            what = f"{entry.path} is no picture ({', '.join(e[1:] for e in PICTURES)})"
            faults.append(Fault("files", what, "convert it or take it out of the folder"))
    return faults


class TaggedSource:
    """The photos of a list of tags as a random-access source of Examples.

    Args:
      folder: see above; no picture is opened here.
      split: only "train": such a folder has no splits.
      label_set: the stream's classes; every tag must be one of them.
      max_megapixels: the largest photo that is decoded, millions of pixels.
    """

    def __init__(self, folder: Path, split: str, label_set: LabelSet, max_megapixels: int = MAX_MEGAPIXELS) -> None:
        if split != "train":
            raise UserError(f"{folder}, split {split!r}: a list of tags has no splits: leave `split` at 'train'")
        self._listing, self._max_megapixels = list_tagged(folder), max_megapixels
        raise_first(unknown_tags(self._listing, label_set))
        raise_first(self._listing.faults)
        self._columns = np.array([label_set.column(name) for name in self._listing.names], np.int32)

    def __len__(self) -> int:
        return len(self._listing)

    def columns(self, index: SupportsIndex) -> Int32[np.ndarray, " k"]:
        """Ascending columns of a photo's tags; no file is opened."""
        return np.unique(self._columns[list(self._listing.tags[index])])

    def __getitem__(self, index: SupportsIndex) -> Example:
        photo = self._listing.read(index)
        image = decode_image(photo.image, photo.image_name, self._max_megapixels)
        return {"id": photo.id, "image": image, "tags": self.columns(index)}


def unknown_tags(listing: TaggedListing, label_set: LabelSet) -> list[Fault]:
    """A fault for every tag that is no class of the stream, with the first photo that has it."""
    faults = []
    for i, name in enumerate(listing.names):
        if name in label_set.members:
            continue
        photo = next(photo for photo, tags in zip(listing.photos, listing.tags, strict=True) if i in tags)
        close = difflib.get_close_matches(name, label_set.members, n=3)
        hint = f"did you mean {', '.join(close)}?" if close else f"it has {len(label_set)} classes"
        what = f"{listing.file}: {photo!r} has the tag {name!r}, which is no class of the stream, {hint}"
        faults.append(Fault("tag", what, "correct the list, or add the class"))
    return faults
