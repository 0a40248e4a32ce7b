"""Tagged photos as most people keep them: a folder per class (listed in class_listing.py)."""

from __future__ import annotations

import difflib
from collections.abc import Iterable
from pathlib import Path
from typing import SupportsIndex

import numpy as np
from jaxtyping import Int32, Int64

from data_pipelines.class_listing import class_folder_names, class_name, list_class_folders
from data_pipelines.decode import decode_image
from data_pipelines.examples import Example
from data_pipelines.faults import Fault, raise_first
from data_pipelines.picture_files import MAX_MEGAPIXELS
from larvseg_jax.errors import UserError
from larvseg_jax.vocabulary import LabelSet


class ClassFolderSource:
    """All photos of a folder of class folders, each tagged with its folder's class.

    An Example's id is "<class>/<file name>". A photo of several classes may lie in several folders; each
    copy is an Example of its own. Of a million files only the names are kept, in one array of bytes.

    Args:
      folder: the folder with the class folders; no file of it is opened here.
      split: only "train": class folders have no splits.
      label_set: the stream's classes; every folder must be one of them.
      max_megapixels: the largest photo that is decoded, millions of pixels.

    Attributes:
      photos_per_column: number of photos of each class of the stream, 0 where it has no folder.
    """

    def __init__(self, folder: Path, split: str, label_set: LabelSet, max_megapixels: int = MAX_MEGAPIXELS) -> None:
        if split != "train":
            raise UserError(f"{folder}, split {split!r}: class folders have no splits: leave `split` at 'train'")
        self._listing, self._max_megapixels = list_class_folders(folder), max_megapixels
        raise_first(unknown_folders(folder, self._listing.folders, label_set))
        raise_first(self._listing.faults)
        self._columns = [label_set.column(class_name(name)) for name in self._listing.folders]
        self.photos_per_column: Int64[np.ndarray, " n"] = np.zeros(len(label_set), np.int64)
        np.add.at(self.photos_per_column, self._columns, self._listing.photos_per_class)

    def __len__(self) -> int:
        return len(self._listing)

    def columns(self, index: SupportsIndex) -> Int32[np.ndarray, " one"]:
        """The column of a photo's class; no file is opened."""
        return np.array([self._columns[self._listing.class_of(index)]], np.int32)

    def __getitem__(self, index: SupportsIndex) -> Example:
        photo = self._listing.read(index)
        assert photo.tags is not None
        return {
            "id": photo.id,
            "image": decode_image(photo.image, photo.image_name, self._max_megapixels),
            "tags": np.array([self._columns[i] for i in photo.tags], np.int32),
        }


def class_folders(folder: Path) -> list[str]:
    """Sorted names of the class folders in `folder`; their pictures are not listed.

    Raises:
      DataError: no such folder, no class folder in it, or a file beside them.
    """
    names, faults = class_folder_names(folder)
    raise_first(faults)
    return names


def unknown_folders(folder: Path, names: Iterable[str], label_set: LabelSet) -> list[Fault]:
    """A fault for every class folder of `folder` that is no class of the stream."""
    faults = []
    for name in names:
        if class_name(name) in label_set.members:
            continue
        close = difflib.get_close_matches(class_name(name), label_set.members, n=3)
        hint = f"did you mean {', '.join(close)}?" if close else f"it has {len(label_set)} classes"
        what = f"{folder / name}: {name!r} is no class of the stream, {hint}"
        faults.append(Fault("files", what, "rename or remove the folder, or add the class"))
    return faults
