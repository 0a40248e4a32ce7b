"""What lies in a folder of class folders, with all that is wrong in it.

<folder>/<class name>/<any name>.jpg|jpeg|png|webp|bmp|tif
"""

from __future__ import annotations

import dataclasses
import os
import unicodedata
from pathlib import Path
from typing import SupportsIndex

import numpy as np
from jaxtyping import Int64

from data_pipelines.examples import RawPhoto
from data_pipelines.faults import Fault
from data_pipelines.files import entries, is_folder, leads_nowhere, read_bytes
from data_pipelines.listing import picture_names
from larvseg_jax.errors import DataError


@dataclasses.dataclass(frozen=True)
class ClassFolderListing:
    """The pictures of a folder of class folders, numbered by folder name, then file name.

    Attributes:
      folder: the folder with the class folders.
      folders: their names, sorted; a photo's class id is the place of its folder here.
      names: file names of all photos without anything between them: of a million files no more is kept.
      ends: where the name of each photo ends.
      class_ends: number of photos up to the last of each class.
      faults: all that is wrong, as far as names tell.
    """

    folder: Path
    folders: tuple[str, ...]
    names: bytes
    ends: Int64[np.ndarray, " photos"]
    class_ends: Int64[np.ndarray, " classes"]
    faults: tuple[Fault, ...]

    def __len__(self) -> int:
        return len(self.ends)

    @property
    def photos_per_class(self) -> Int64[np.ndarray, " classes"]:
        """Number of photos in each class folder."""
        return np.diff(self.class_ends, prepend=0)

    def class_of(self, index: SupportsIndex) -> int:
        """Class id of a photo."""
        return int(np.searchsorted(self.class_ends, range(len(self))[index], side="right"))

    def read(self, index: SupportsIndex) -> RawPhoto:
        """Reads one photo; DataError if its file cannot be read. Safe to call from several threads."""
        i = range(len(self))[index]
        begin = self.ends[i - 1] if i else 0
        file = os.fsdecode(self.names[begin : self.ends[i]])
        class_id = self.class_of(i)
        path = str(self.folder / self.folders[class_id] / file)
        return RawPhoto(f"{self.folders[class_id]}/{file}", path, read_bytes(path), tags=(class_id,))


def list_class_folders(folder: Path) -> ClassFolderListing:
    """Lists all class folders of a folder. No file is opened or asked for its size.

    Raises:
      DataError: there is no such folder, or it cannot be listed.
    """
    folders, faults = class_folder_names(folder)
    names = bytearray()
    ends: list[np.ndarray] = [np.zeros(0, np.int64)]
    counts = []
    for name in folders:
        try:
            pictures, others = picture_names(folder / name)
        except DataError as error:
            faults.append(Fault.of(error))
            counts.append(0)
            continue
        faults += others
        if not pictures:
            faults.append(Fault("files", f"{folder / name} holds no pictures", "put some into it, or remove it"))
        files = [os.fsencode(file) for file in pictures]
        ends.append(len(names) + np.cumsum([len(file) for file in files], dtype=np.int64))
        names += b"".join(files)
        counts.append(len(files))
    return ClassFolderListing(
        folder=folder,
        folders=tuple(folders),
        names=bytes(names),
        ends=np.concatenate(ends),
        class_ends=np.cumsum(counts, dtype=np.int64),
        faults=tuple(faults),
    )


def class_folder_names(folder: Path) -> tuple[list[str], list[Fault]]:
    """Sorted names of the class folders in `folder`, and what is wrong beside them; their pictures are not listed.

    Raises:
      DataError: there is no such folder, or it cannot be listed.
    """
    if not folder.is_dir():
        remedy = "make it, with a folder of pictures per class in it, or correct the path"
        raise DataError("files", f"{folder} does not exist", remedy)
    names, faults = [], []
    for entry in sorted(entries(folder), key=lambda entry: entry.name):
        if is_folder(entry):
            names.append(entry.name)
        elif leads_nowhere(entry):
            faults.append(Fault("files", f"{folder / entry.name} is a link that leads nowhere", "mend or remove it"))
        else:
            what = f"{folder / entry.name} lies beside the class folders"
            faults.append(Fault("files", what, "move it into one, or away"))
    if not names:
        remedy = "make one per class, named like the class, with its pictures"
        faults.append(Fault("files", f"{folder} has no class folders", remedy))
    return names, faults


def class_name(folder_name: str) -> str:
    """The class a folder is for: its name, composed (macOS stores "é" as two characters)."""
    return unicodedata.normalize("NFC", folder_name)
