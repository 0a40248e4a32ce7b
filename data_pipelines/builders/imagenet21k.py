"""ImageNet-21K, and the authors' selections of 124 and 585 of its synsets, from one download.

Folders that are read, at `root` or in its folder fall11_whole, winter21_whole, imagenet21k_train or images:

    n02084071/*.JPEG       a folder of photos for every synset, or
    n02084071.tar          the archive of its photos, as the releases hold them

For the selections a file ImageNet124.txt or ImageNet585.txt there, one "<synset>_<number>" per line, says which
photos to take; without it all of their synsets. Nothing but the names of a few synsets is ever held in memory.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, ClassVar, NamedTuple

from data_pipelines.builders.download_builder import DownloadBuilder, in_pieces
from data_pipelines.builders.imagenet_release import release_of
from data_pipelines.builders.records import Photo, Unreadable
from data_pipelines.builders.synset_photos import photos_in_archive, photos_in_folder
from data_pipelines.files import entries
from larvseg_jax.errors import UserError
from larvseg_jax.vocabulary.class_lists import class_list

_FOLDERS = ("", "fall11_whole", "winter21_whole", "imagenet21k_train", "images")
_SYNSET = re.compile(r"n\d{8}")
_MAX_SHARDS = 900  # readers keep every shard open, and 1,024 open files is a common limit
_MIN_SYNSETS = 4  # in a shard: about 3,000 photos


class Synsets(NamedTuple):
    """A shard's worth of synsets.

    Attributes:
      folder: where they are.
      names: of their folders or archives in it.
      listed: file that lists the photos to take; None: all of them.
      lines: how many photos it lists, so that a changed list is noticed.
    """

    folder: str
    names: tuple[str, ...]
    listed: str | None
    lines: int


class ImageNet21k(DownloadBuilder):
    """All photos of the 21,841 synsets of ImageNet-21K that are there."""

    CLASS_LIST = "imagenet_21k"
    MASKS = False
    EXPECTED: ClassVar[dict[str, int]] = {}  # depends on the release
    PHOTO_LIST: ClassVar[str | None] = None
    """Name of the file that lists the photos to take."""

    def layout(self, root: Path) -> str:
        """Which photos the folder has: archives or folders of synsets, and in which folder of it; UserError if none."""
        folder, names = _find(root)
        tars = sum(name.endswith(".tar") for name in names.values())
        kinds = [f"{len(names) - tars:,} folders of photos"] * (tars < len(names)) + [f"{tars:,} archives"] * bool(tars)
        place = f" in {folder.name}/" if folder != root else ""
        photo_list = self._photo_list(root)
        by_list = f", listed in {photo_list.name}" if photo_list else ""
        return f"{' and '.join(kinds)} named by synset{place}{by_list}"

    def pieces(self, root: Path) -> dict[str, Sequence[Synsets]]:
        """The split train: synsets in the order of their ids, some together in a piece; UserError if none is here."""
        folder, names = _find(root)
        photo_list = self._photo_list(root)
        found = [names[wnid] for wnid in sorted(class_list(self.CLASS_LIST).ids) if wnid in names]
        if not found:
            raise UserError(
                f"{folder} holds none of the {self.class_count} synsets of {self.CLASS_LIST}: download them"
            )
        size = max(_MIN_SYNSETS, -(-len(found) // _MAX_SHARDS))
        listed, lines = (str(photo_list), sum(1 for _ in _lines(photo_list))) if photo_list else (None, 0)
        return {"train": [Synsets(str(folder), tuple(group), listed, lines) for group in in_pieces(found, size)]}

    def photos(self, piece: Synsets) -> Iterator[Photo | Unreadable]:
        """The photos of the synsets of a piece, each with its synset as its tag."""
        selections = _selections(piece)
        for name in piece.names:
            path, wnid = Path(piece.folder, name), name.removesuffix(".tar")
            label = class_list(self.CLASS_LIST).index(wnid)
            photos = photos_in_archive if name.endswith(".tar") else photos_in_folder
            yield from photos(path, label, None if selections is None else selections[wnid])

    def facts(self, root: Path) -> dict[str, Any]:
        """The release, what a partial download lacks, and folders that are no synset.

        missing_synsets are those of the data set's class list, missing_from_release those of the closest release.
        """
        folder, names = _find(root)
        release = release_of(names)
        photo_list = self._photo_list(root)
        if photo_list:
            expected = {"train": sum(1 for _ in _lines(photo_list))}
        else:
            expected = {"train": release.photos} if release.photos and self.CLASS_LIST == "imagenet_21k" else {}
        return {
            "expected": expected,
            "release": release.name,
            "closest_release": release.closest,
            "missing_from_release": list(release.missing),
            "missing_synsets": sorted(set(class_list(self.CLASS_LIST).ids) - names.keys()),
            "unknown_synsets": _unknown(folder),
        }

    def remarks(self, root: Path) -> list[str]:
        """Which release the folder looks like, and what it lacks of it."""
        facts, lines = self.facts(root), []
        if not facts["closest_release"]:
            lines.append(f"release {facts['release']}")
        elif self.CLASS_LIST == "imagenet_21k":
            missing = _count_and_first(facts["missing_from_release"])
            lines.append(f"no whole release, the closest is {facts['closest_release']}: {missing} missing")
        if self.CLASS_LIST != "imagenet_21k" and facts["missing_synsets"]:
            lines.append(f"of its {self.class_count} synsets {_count_and_first(facts['missing_synsets'])} missing")
        if facts["unknown_synsets"]:
            lines.append(
                f"left out, as they are no synset of ImageNet-21K: {_count_and_first(facts['unknown_synsets'])}"
            )
        return lines

    def _photo_list(self, root: Path) -> Path | None:
        """The file that lists the photos to take, if there is one."""
        if self.PHOTO_LIST is None:
            return None
        places = (root / self.PHOTO_LIST, *(root / folder / self.PHOTO_LIST for folder in _FOLDERS[1:]))
        return next((file for file in places if file.is_file()), None)


class ImageNet21kSubset124(ImageNet21k):
    """The 124 synsets that name classes of ADE20K-150, one each."""

    CLASS_LIST = "imagenet21k_subset_124"
    PHOTO_LIST = "ImageNet124.txt"


class ImageNet21kSubset585(ImageNet21k):
    """The 585 synsets that name classes of ADE20K-Full, one each."""

    CLASS_LIST = "imagenet21k_subset_585"
    PHOTO_LIST = "ImageNet585.txt"


def _count_and_first(names: list[str]) -> str:
    """How many, and the first of them."""
    return f"{len(names):,} ({', '.join(names[:3])}{', ...' if len(names) > 3 else ''})" if names else "none"


def _find(root: Path) -> tuple[Path, dict[str, str]]:
    """The folder that holds the synsets, and synset -> name of its folder (or else of its archive) there."""
    for name in _FOLDERS:
        folder = root / name
        found: dict[str, str] = {}
        for entry in _entries(folder):
            wnid = entry.removesuffix(".tar")
            if _SYNSET.fullmatch(wnid) and found.get(wnid) != wnid:
                found[wnid] = entry
        if found:
            return folder, found
    raise UserError(
        f"{root} holds no synset folder such as n02084071/ and no archive such as n02084071.tar, neither itself nor in "
        f"{', '.join(_FOLDERS[1:])}: give the folder of an ImageNet-21K download"
    )


def _entries(folder: Path) -> list[str]:
    """Names of the folders and .tar files in a folder, none if it is not there."""
    if not folder.is_dir():
        return []
    return [entry.name for entry in entries(folder) if entry.is_dir() or entry.name.endswith(".tar")]


def _unknown(folder: Path) -> list[str]:
    """Folders and archives that are no synset of the list, ascending."""
    known = set(class_list("imagenet_21k").ids)
    return sorted(name for name in _entries(folder) if name.removesuffix(".tar") not in known)


def _lines(photo_list: Path) -> Iterator[tuple[str, str]]:
    """(synset, photo) of every line; UserError for a line that names no photo."""
    with photo_list.open() as lines:
        for number, line in enumerate(lines, start=1):
            photo = line.strip()
            wnid = photo.partition("_")[0]
            if photo and not (_SYNSET.fullmatch(wnid) and len(photo) > len(wnid) + 1):
                raise UserError(
                    f"{photo_list}, line {number}: {photo!r} is no photo such as n02084071_1234: correct it"
                )
            if photo:
                yield wnid, photo


def _selections(piece: Synsets) -> dict[str, set[str]] | None:
    """Synset -> photos to take of it, for those of a piece; None: all."""
    if piece.listed is None:
        return None
    selections: dict[str, set[str]] = {name.removesuffix(".tar"): set() for name in piece.names}
    for wnid, photo in _lines(Path(piece.listed)):
        if wnid in selections:
            selections[wnid].add(photo)
    return selections
