"""Tagged photos as most people keep them: a folder per class.

<folder>/<class name>/<any name>.jpg|jpeg|png|webp|bmp|tif
"""

from __future__ import annotations

import difflib
import os
import unicodedata
from pathlib import Path
from typing import SupportsIndex

import numpy as np
from jaxtyping import Int64

from data_pipelines.decode import decode_image
from data_pipelines.examples import Example
from data_pipelines.files import entries, picture_names, read_bytes
from larvseg_jax.errors import UserError
from larvseg_jax.vocabulary import IGNORE_LABEL, LabelSet


class ClassFolderSource:
    """All photos of a folder of class folders, each tagged with its folder's class.

    An Example's id is "<class>/<file name>". A photo of several classes may lie in several folders; each
    copy is an Example of its own. Of a million files only the names are kept, in one array of bytes.

    Args:
      folder: the folder with the class folders; no file of it is opened here.
      split: only "train": class folders have no splits.
      label_set: the stream's classes; every folder must be one of them.

    Attributes:
      photos_per_column: number of photos of each class of the stream, 0 where it has no folder.
    """

    def __init__(self, folder: Path, split: str, label_set: LabelSet) -> None:
        if split != "train":
            raise UserError(f"{folder}, split {split!r}: class folders have no splits: leave `split` at 'train'")
        self._folder = folder
        self._classes = class_folders(folder)
        self._columns = [_column(name, label_set, folder) for name in self._classes]
        names = bytearray()
        ends: list[np.ndarray] = []
        counts = []
        for name in self._classes:
            files = [os.fsencode(file) for file in picture_names(folder / name)]
            if not files:
                raise UserError(f"{folder / name} holds no pictures: put some into it, or remove it")
            ends.append(len(names) + np.cumsum([len(file) for file in files], dtype=np.int64))
            names += b"".join(files)
            counts.append(len(files))
        self._names = bytes(names)
        self._ends: Int64[np.ndarray, " photos"] = np.concatenate(ends)
        self._class_ends: Int64[np.ndarray, " classes"] = np.cumsum(counts, dtype=np.int64)
        self.photos_per_column: Int64[np.ndarray, " n"] = np.zeros(len(label_set), np.int64)
        np.add.at(self.photos_per_column, self._columns, counts)

    def __len__(self) -> int:
        return len(self._ends)

    def __getitem__(self, index: SupportsIndex) -> Example:
        i = range(len(self))[index]
        begin = self._ends[i - 1] if i else 0
        file = os.fsdecode(self._names[begin : self._ends[i]])
        number = int(np.searchsorted(self._class_ends, i, side="right"))
        path = str(self._folder / self._classes[number] / file)
        return {
            "id": f"{self._classes[number]}/{file}",
            "image": decode_image(read_bytes(path), path),
            "tags": np.array([self._columns[number]], np.int32),
        }


def class_folders(folder: Path) -> list[str]:
    """Sorted names of the class folders in `folder`.

    Raises:
      UserError: no such folder, no class folder in it, or a file beside them.
    """
    if not folder.is_dir():
        raise UserError(
            f"{folder} does not exist: make it, with a folder of pictures per class in it, or correct the path"
        )
    names = []
    for entry in entries(folder):
        if not entry.is_dir():
            raise UserError(f"{folder / entry.name} lies beside the class folders: move it into one, or away")
        names.append(entry.name)
    if not names:
        raise UserError(f"{folder} has no class folders: make one per class, named like the class, with its pictures")
    return sorted(names)


def class_name(folder_name: str) -> str:
    """The class a folder is for: its name, composed (macOS stores "é" as two characters)."""
    return unicodedata.normalize("NFC", folder_name)


def _column(folder_name: str, label_set: LabelSet, folder: Path) -> int:
    column = label_set.column(class_name(folder_name))
    if column == IGNORE_LABEL:
        close = difflib.get_close_matches(class_name(folder_name), label_set.members, n=3)
        hint = f"did you mean {', '.join(close)}?" if close else f"it has {len(label_set)} classes"
        raise UserError(
            f"{folder / folder_name}: {folder_name!r} is no class of the stream, {hint}: rename or remove the "
            "folder, or add the class"
        )
    return column
