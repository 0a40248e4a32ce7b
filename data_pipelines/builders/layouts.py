"""How the photos and masks of a download lie on disk, and which mask belongs to which photo."""

from __future__ import annotations

import dataclasses
import os
from collections.abc import Iterator, Mapping
from pathlib import Path, PurePosixPath

from data_pipelines.builders.encodings import Encoding
from data_pipelines.files import is_by_others
from larvseg_jax.errors import UserError


@dataclasses.dataclass(frozen=True)
class SplitFiles:
    """Where the files of one split lie; folders and files relative to the data set's folder.

    Attributes:
      photos: folder of the photos, folders in it included; of several the first that has any counts.
      masks: folders of the masks, folders in them included; for each photo the first that has its mask counts.
      photo_suffix, mask_suffix: what follows the photo's name in the names of the two files.
      lists: files with the name of one photo per line; the first that exists counts. Without any, all photos and masks
        of the folders must match.
      not_masks: endings of other files that lie among the masks.
    """

    photos: tuple[str, ...]
    masks: tuple[str, ...]
    photo_suffix: str = ".jpg"
    mask_suffix: str = ".png"
    lists: tuple[str, ...] = ()
    not_masks: tuple[str, ...] = ()

    def __str__(self) -> str:
        lists = f" and {' or '.join(self.lists)}" if self.lists else ""
        photos = " or ".join(self.photos)
        return f"{photos}/*{self.photo_suffix} with {' or '.join(self.masks)}/*{self.mask_suffix}{lists}"

    def are_in(self, base: Path) -> bool:
        """Whether there is a photo, a mask and, if need be, a list."""
        if self.lists and self._list(base) is None:
            return False
        masks = any(any(self._masks(base, folder)) for folder in self.masks)
        return masks and self._photo_folder(base) is not None

    def match(self, base: Path) -> list[tuple[str, str, str]]:
        """(id, photo, mask) of all photos by name, files relative to `base`.

        Raises UserError if one of the two files is missing or two photos have the same id.
        """
        folder = self._photo_folder(base)
        photos = set(_names(base / str(folder), self.photo_suffix))
        masks: dict[str, str] = {}  # name -> folder
        for mask_folder in reversed(self.masks):
            masks |= dict.fromkeys(self._masks(base, mask_folder), mask_folder)
        photo_list = self._list(base)
        if photo_list:
            names = sorted({line.strip() for line in photo_list.read_text("utf-8").splitlines()} - {""})
            why, without_photo = f"which is in {photo_list}", [name for name in names if name not in photos]
        else:
            names, why, without_photo = sorted(photos), "which has a mask", sorted(masks.keys() - photos)
        if without_photo:
            raise UserError(
                f"{base / str(folder)}: {len(without_photo)} photos are missing, the first is "
                f"{without_photo[0]}{self.photo_suffix}, {why}: unpack the photos anew"
            )
        without_mask = [name for name in names if name not in masks]
        if without_mask:
            raise UserError(
                f"{' and '.join(str(base / mask_folder) for mask_folder in self.masks)}: {len(without_mask)} masks "
                f"are missing, the first is {without_mask[0]}{self.mask_suffix}: unpack (or convert) the masks anew"
            )
        matches: dict[str, tuple[str, str, str]] = {}
        for name in names:
            photo, mask = f"{folder}/{name}{self.photo_suffix}", f"{masks[name]}/{name}{self.mask_suffix}"
            photo_id = PurePosixPath(name).name
            other = matches.setdefault(photo_id, (photo_id, photo, mask))
            if other[1] != photo:
                raise UserError(f"{base / photo}: {base / other[1]} has the same name: take one of the two out")
        return list(matches.values())

    def passed_over(self, base: Path) -> list[str]:
        """Folders among the photos and masks that are hidden or left by other programs, relative to `base`."""
        found = set()
        for top in (*self.photos, *self.masks):
            for parent, folders, _ in os.walk(base / top, followlinks=True):
                found |= {Path(parent, name).relative_to(base).as_posix() for name in folders if is_by_others(name)}
                folders[:] = [name for name in folders if not is_by_others(name)]
        return sorted(found)

    def _list(self, base: Path) -> Path | None:
        """The first list that exists."""
        return next((base / name for name in self.lists if (base / name).is_file()), None)

    def _photo_folder(self, base: Path) -> str | None:
        """The first folder that has photos."""
        return next((folder for folder in self.photos if any(_names(base / folder, self.photo_suffix))), None)

    def _masks(self, base: Path, folder: str) -> Iterator[str]:
        return _names(base / folder, self.mask_suffix, self.not_masks)


@dataclasses.dataclass(frozen=True)
class Layout:
    """One way the files of a data set can lie on disk.

    Attributes:
      name: for messages and metadata.json.
      splits: where the files of each split are.
      encoding: which class each value of the masks stands for.
    """

    name: str
    splits: Mapping[str, SplitFiles]
    encoding: Encoding


def _names(folder: Path, suffix: str, other_endings: tuple[str, ...] = ()) -> Iterator[str]:
    """Relative names, without the suffix, of a folder's files that end in it; in no order."""
    for parent, folders, files in os.walk(folder, followlinks=True):
        here = set(files)  # ADE20K keeps the instances of X.jpg in a folder X: hundreds of thousands of files
        folders[:] = [name for name in folders if name + suffix not in here and not is_by_others(name)]
        below = Path(parent).relative_to(folder).as_posix()
        for name in files:
            if name.endswith(suffix) and not name.endswith(other_endings) and not is_by_others(name):
                yield (name if below == "." else f"{below}/{name}").removesuffix(suffix)
