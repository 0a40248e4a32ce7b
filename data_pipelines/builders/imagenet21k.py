"""ImageNet-21K, and the authors' selections of 124 and 585 of its synsets, from one download.

Folders that are read, at `root` or in its folder fall11_whole, winter21_whole, imagenet21k_train or images:

    n02084071/*.JPEG       a folder of photos for every synset, or
    n02084071.tar          the archive of its photos, as the releases hold them

For the selections a file ImageNet124.txt or ImageNet585.txt there, one "<synset>_<number>" a line, says which
photos to take; without it all of their synsets. Nothing but the names of a few synsets is ever held in memory.
"""

from __future__ import annotations

import os
import re
import tarfile
from collections.abc import Iterator, Sequence
from pathlib import Path, PurePosixPath
from typing import Any, ClassVar, NamedTuple

from data_pipelines.builders.imagenet_release import release_of
from data_pipelines.builders.layout import LayoutBuilder, Photo, Unreadable, each, in_pieces, read_file
from larvseg_jax.class_lists import class_list
from larvseg_jax.errors import UserError

_FOLDERS = ("", "fall11_whole", "winter21_whole", "imagenet21k_train", "images")
_SYNSET = re.compile(r"n\d{8}")
_PICTURES = {".jpeg", ".jpg", ".png"}
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


class ImageNet21k(LayoutBuilder):
    """All photos of the 21,841 synsets of ImageNet-21K that are there."""

    CLASS_LIST = "imagenet_21k"
    MASKS = False
    EXPECTED: ClassVar[dict[str, int]] = {}  # depends on the release
    LISTED: ClassVar[str | None] = None
    """Name of the file that lists the photos to take."""

    def layout(self, root: Path) -> str:
        folder, names = _find(root)
        tars = sum(name.endswith(".tar") for name in names.values())
        kinds = [f"{len(names) - tars:,} folders of photos"] * (tars < len(names)) + [f"{tars:,} archives"] * bool(tars)
        where = f" in {folder.name}/" if folder != root else ""
        listed = self._listed(root)
        return f"{' and '.join(kinds)} named by synset{where}" + (f", listed in {listed.name}" if listed else "")

    def pieces(self, root: Path) -> dict[str, Sequence[Synsets]]:
        folder, names = _find(root)
        listed = self._listed(root)
        mine = [names[wnid] for wnid in sorted(class_list(self.CLASS_LIST).ids) if wnid in names]
        if not mine:
            raise UserError(
                f"{folder} holds none of the {self.class_count} synsets of {self.CLASS_LIST}: download them"
            )
        size = max(_MIN_SYNSETS, -(-len(mine) // _MAX_SHARDS))
        where, lines = (str(listed), sum(1 for _ in _lines(listed))) if listed else (None, 0)
        return {"train": [Synsets(str(folder), tuple(group), where, lines) for group in in_pieces(mine, size)]}

    def photos(self, piece: Synsets) -> Iterator[Photo | Unreadable]:
        wanted = _wanted(piece)
        for name in piece.names:
            path, wnid = Path(piece.folder, name), name.removesuffix(".tar")
            label = class_list(self.CLASS_LIST).index(wnid)
            read = _in_archive if name.endswith(".tar") else _in_folder
            yield from read(path, label, None if wanted is None else wanted.get(wnid, set()))

    def facts(self, root: Path) -> dict[str, Any]:
        """The release, what a partial download lacks, and folders that are no synset.

        missing_synsets are those of the data set's class list, missing_from_release those of the closest release.
        """
        folder, names = _find(root)
        release = release_of(names)
        listed = self._listed(root)
        if listed:
            expected = {"train": sum(1 for _ in _lines(listed))}
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
        facts, lines = self.facts(root), []
        if not facts["closest_release"]:
            lines.append(f"release {facts['release']}")
        elif self.CLASS_LIST == "imagenet_21k":
            missing = _some(facts["missing_from_release"])
            lines.append(f"no whole release, the closest is {facts['closest_release']}: {missing} missing")
        if self.CLASS_LIST != "imagenet_21k" and facts["missing_synsets"]:
            lines.append(f"of its {self.class_count} synsets {_some(facts['missing_synsets'])} missing")
        if facts["unknown_synsets"]:
            lines.append(f"left out, as they are no synset of ImageNet-21K: {_some(facts['unknown_synsets'])}")
        return lines

    def _listed(self, root: Path) -> Path | None:
        """The file that lists the photos to take, if there is one."""
        if self.LISTED is None:
            return None
        places = (root / self.LISTED, *(root / folder / self.LISTED for folder in _FOLDERS[1:]))
        return next((file for file in places if file.is_file()), None)


class ImageNet21kSubset124(ImageNet21k):
    """The 124 synsets that name classes of ADE20K-150, one each."""

    CLASS_LIST = "imagenet21k_subset_124"
    LISTED = "ImageNet124.txt"


class ImageNet21kSubset585(ImageNet21k):
    """The 585 synsets that name classes of ADE20K-Full, one each."""

    CLASS_LIST = "imagenet21k_subset_585"
    LISTED = "ImageNet585.txt"


def _some(names: list[str]) -> str:
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
    with os.scandir(folder) as entries:
        return [e.name for e in entries if not e.name.startswith(".") and (e.is_dir() or e.name.endswith(".tar"))]


def _unknown(folder: Path) -> list[str]:
    """Folders and archives that are no synset of the list, ascending."""
    known = set(class_list("imagenet_21k").ids)
    return sorted(name for name in _entries(folder) if name.removesuffix(".tar") not in known)


def _lines(listed: Path) -> Iterator[tuple[str, str]]:
    """(synset, photo) of every line; UserError for a line that names no photo."""
    with listed.open() as lines:
        for number, line in enumerate(lines, start=1):
            photo = line.strip()
            wnid = photo.partition("_")[0]
            if photo and not (_SYNSET.fullmatch(wnid) and len(photo) > len(wnid) + 1):
                raise UserError(f"{listed}, line {number}: {photo!r} is no photo such as n02084071_1234: correct it")
            if photo:
                yield wnid, photo


def _wanted(piece: Synsets) -> dict[str, set[str]] | None:
    """The photos to take of each synset of a piece, None: all."""
    if piece.listed is None:
        return None
    wanted: dict[str, set[str]] = {name.removesuffix(".tar"): set() for name in piece.names}
    for wnid, photo in _lines(Path(piece.listed)):
        if wnid in wanted:
            wanted[wnid].add(photo)
    return wanted


def _take(names: dict[str, Any], wanted: set[str] | None) -> list[str]:
    """Names of the pictures to take, in order."""
    pictures = (name for name in names if PurePosixPath(name).suffix.lower() in _PICTURES and name[0] != ".")
    return sorted(name for name in pictures if wanted is None or PurePosixPath(name).stem in wanted)


def _missing(where: str, taken: list[str], wanted: set[str] | None) -> Iterator[Unreadable]:
    """Photos that the list names and the download does not hold."""
    for photo in sorted((wanted or set()) - {PurePosixPath(name).stem for name in taken}):
        yield Unreadable(f"{where}/{photo}", "listed, but not there")


def _in_folder(folder: Path, label: int, wanted: set[str] | None) -> Iterator[Photo | Unreadable]:
    def read(name: str) -> Photo:
        return Photo(Path(name).stem, read_file(folder / name), None, (label,), f"{folder.name}/{name}")

    try:
        with os.scandir(folder) as entries:
            names = _take({entry.name: None for entry in entries}, wanted)
    except OSError as error:
        yield Unreadable(folder, error.strerror)
        return
    yield from each(read, names)
    yield from _missing(folder.name, names, wanted)


def _in_archive(path: Path, label: int, wanted: set[str] | None) -> Iterator[Photo | Unreadable]:
    def read(name: str) -> Photo:
        file = f"{path.name}/{name}"
        try:
            stream = archive.extractfile(members[name])
            assert stream is not None  # isfile()
            return Photo(Path(name).stem, stream.read(), None, (label,), file)
        except (tarfile.TarError, OSError) as error:
            raise Unreadable(file, error) from error

    members: dict[str, tarfile.TarInfo] = {}
    names: list[str] = []
    try:
        with tarfile.open(path, "r:") as archive:
            broken = _index(archive, members)
            names = _take(members, wanted)
            yield from each(read, names)
    except (tarfile.TarError, OSError) as error:  # no archive at all
        broken = str(error)
    if broken:
        yield Unreadable(path.name, f"{broken}: photos may be missing")
    yield from _missing(path.name, names, wanted)


def _index(archive: tarfile.TarFile, members: dict[str, tarfile.TarInfo]) -> str:
    """Collects the files of an archive by name; says what is wrong with it, if anything."""
    try:
        for member in archive:
            if member.isfile():
                members[PurePosixPath(member.name).name] = member
    except (tarfile.TarError, OSError) as error:
        return str(error)
    # tarfile takes a broken header for the end of the archive, which a block of zeros marks.
    assert archive.fileobj is not None
    archive.fileobj.seek(archive.offset)
    return "" if archive.fileobj.read(512) == bytes(512) else "no end of archive"
