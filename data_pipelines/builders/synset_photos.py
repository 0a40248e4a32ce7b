"""The photos of one synset of ImageNet-21K, from a folder or from an archive."""

from __future__ import annotations

import os
import tarfile
from collections.abc import Collection, Iterator
from pathlib import Path, PurePosixPath

from data_pipelines.builders.download_builder import each, read_file
from data_pipelines.builders.records import Photo, Unreadable
from data_pipelines.files import is_by_others
from data_pipelines.tar_members import BROKEN, file_members, reason

_PICTURES = {".jpeg", ".jpg", ".png"}


def photos_in_folder(folder: Path, label: int, selection: set[str] | None) -> Iterator[Photo | Unreadable]:
    """The photos of a synset's folder, in order.

    Args:
      folder: the photos lie in it.
      label: class id of the synset.
      selection: names, without ending, of the photos to take; one that is not there is Unreadable. None: all photos.
    """

    def read(name: str) -> Photo:
        return Photo(Path(name).stem, read_file(folder / name), None, (label,), f"{folder.name}/{name}")

    try:
        with os.scandir(folder) as entries:
            names = _pictures([entry.name for entry in entries], selection)
    except OSError as error:
        yield Unreadable(folder, error.strerror)
        return
    yield from each(read, names)
    yield from _missing(folder.name, names, selection)


def photos_in_archive(path: Path, label: int, selection: set[str] | None) -> Iterator[Photo | Unreadable]:
    """As `photos_in_folder`, from a .tar file that is not unpacked."""

    def read(name: str) -> Photo:
        file = f"{path.name}/{name}"
        try:
            if members[name].size > path.stat().st_size:  # it would be allocated before it is read
                raise Unreadable(file, f"it claims {members[name].size:,} bytes, more than its archive has")
            stream = archive.extractfile(members[name])
            assert stream is not None  # isfile()
            return Photo(Path(name).stem, stream.read(), None, (label,), file)
        except BROKEN as error:
            raise Unreadable(file, error) from error

    members: dict[str, tarfile.TarInfo] = {}
    names: list[str] = []
    try:
        with tarfile.open(path, "r:") as archive:
            found, broken = file_members(archive)
            members.update({PurePosixPath(member.name).name: member for member in found})
            names = _pictures(members, selection)
            yield from each(read, names)
    except BROKEN as error:  # no archive at all
        broken = reason(error)
    if broken:
        yield Unreadable(path.name, f"{broken}: photos may be missing")
    yield from _missing(path.name, names, selection)


def _pictures(names: Collection[str], selection: set[str] | None) -> list[str]:
    """Names of the pictures to take, in order."""
    pictures = (name for name in names if PurePosixPath(name).suffix.lower() in _PICTURES and not is_by_others(name))
    return sorted(name for name in pictures if selection is None or PurePosixPath(name).stem in selection)


def _missing(where: str, names: list[str], selection: set[str] | None) -> Iterator[Unreadable]:
    """Photos of the selection that the download does not hold."""
    for photo in sorted((selection or set()) - {PurePosixPath(name).stem for name in names}):
        yield Unreadable(f"{where}/{photo}", "listed, but not there")
