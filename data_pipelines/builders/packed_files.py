"""The files of a download that may stay packed: a folder, a .zip or a .tar, read by name."""

from __future__ import annotations

import abc
import functools
import os
import tarfile
import zipfile
from collections.abc import Iterator
from pathlib import Path, PurePosixPath

from data_pipelines.builders.download_builder import read_file
from data_pipelines.builders.records import Unreadable
from data_pipelines.files import is_by_others
from larvseg_jax.errors import UserError

# What damaged archives raise; NotImplementedError and RuntimeError come of methods and passwords no one reads here.
_BROKEN = (
    *(zipfile.BadZipFile, tarfile.TarError, OSError, EOFError, ValueError, OverflowError, MemoryError),
    *(NotImplementedError, RuntimeError),
)


class Files(abc.ABC):
    """Files by their name relative to `path`, with forward slashes; those of other programs are passed over."""

    def __init__(self, path: Path) -> None:
        self.path = path

    @abc.abstractmethod
    def names(self, folder: str = "") -> Iterator[str]:
        """Names of all files below a folder, in no order."""

    @abc.abstractmethod
    def has(self, name: str) -> bool:
        """Whether there is such a file."""

    @abc.abstractmethod
    def read(self, name: str) -> bytes:
        """Its bytes; Unreadable if there is none or it is damaged."""

    def where(self, name: str) -> str:
        """The file as the user knows it."""
        return f"{self.path}/{name}"


class _Folder(Files):
    def names(self, folder: str = "") -> Iterator[str]:
        for parent, folders, files in os.walk(self.path / folder, followlinks=True):
            folders[:] = [name for name in folders if not is_by_others(name)]
            below = Path(parent).relative_to(self.path)
            yield from ((below / name).as_posix() for name in files if not is_by_others(name))

    def has(self, name: str) -> bool:
        return (self.path / name).is_file()

    def read(self, name: str) -> bytes:
        return read_file(self.path / name)


class _Archive(Files):
    """A .zip or .tar, whose members are listed once and read where they lie."""

    def __init__(self, path: Path) -> None:
        super().__init__(path)
        try:
            self._zip = zipfile.ZipFile(path) if zipfile.is_zipfile(path) else None
            if self._zip is None:
                with tarfile.open(path, "r:") as archive:
                    self._members = {m.name.removeprefix("./"): m for m in archive if m.isfile()}
            listed = self._members if self._zip is None else self._zip.namelist()
        except _BROKEN as error:
            raise UserError(
                f"{path}: no archive that can be read ({error}): download it again, or unpack it"
            ) from error
        self._names = {name for name in listed if not any(map(is_by_others, PurePosixPath(name).parts))}

    def names(self, folder: str = "") -> Iterator[str]:
        inside = f"{folder}/" if folder else ""
        return (name for name in self._names if name.startswith(inside))

    def has(self, name: str) -> bool:
        return name in self._names

    def read(self, name: str) -> bytes:
        try:
            if self._zip is not None:
                return self._zip.read(name)
            member = self._members[name]
            with self.path.open("rb") as archive:  # open no longer than that: Python warns of files left open
                archive.seek(member.offset_data)
                return archive.read(member.size)
        except KeyError as error:
            raise Unreadable(self.where(name), "no such file in the archive") from error
        except _BROKEN as error:
            raise Unreadable(self.where(name), error) from error


@functools.lru_cache(maxsize=4)  # listing a large .tar takes seconds, and a worker process reads many pieces of it
def open_files(path: Path) -> Files:
    """The files of a folder, a .zip or a .tar; UserError for an archive that cannot be read."""
    return _Folder(path) if path.is_dir() else _Archive(path)
