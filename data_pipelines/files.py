"""Which files count in a data folder, and reading them."""

from __future__ import annotations

import csv
import io
import json
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from larvseg_jax.errors import DataError, UserError

PICTURES = (".jpg", ".jpeg", ".png", ".webp", ".bmp", ".tif", ".tiff")
"""Endings of photos, in lower case."""

_BY_OTHERS = {"thumbs.db", "ehthumbs.db", "desktop.ini", "$recycle.bin", "system volume information"}  # Windows
_BY_OTHERS |= {"__macosx", "icon\r", "lost+found", "__pycache__", "@eadir", "@sharebin", "#recycle", "#snapshot"}


def is_by_others(name: str) -> bool:
    """Whether a file or folder is hidden (.ipynb_checkpoints, .DS_Store) or left by an operating system or a NAS."""
    return name.startswith(".") or name.lower() in _BY_OTHERS


def entries(folder: Path) -> Iterator[os.DirEntry[str]]:
    """What lies in a folder, without hidden files and those that operating systems leave; any order.

    Raises:
      DataError: the folder cannot be listed.
    """
    try:
        with os.scandir(folder) as listing:
            for entry in listing:
                if not is_by_others(entry.name):
                    yield entry
    except OSError as error:
        raise DataError("files", f"{folder}: cannot be listed ({error.strerror})", "check the data folder") from error


def is_folder(entry: os.DirEntry[str]) -> bool:
    """Whether an entry is a folder, or a link to one; a link round in a circle is none."""
    try:
        return entry.is_dir()
    except OSError:
        return False


def leads_nowhere(entry: os.DirEntry[str]) -> bool:
    """Whether an entry is a link to what does not exist. Only links cost a look at the disk."""
    return entry.is_symlink() and not os.path.exists(entry.path)


def read_bytes(file: str | Path) -> bytes:
    """The content of a file, DataError if it cannot be read."""
    try:
        with open(file, "rb") as stream:
            return stream.read()
    except IsADirectoryError as error:
        remedy = "move its pictures out of it, or it away"
        raise DataError("unreadable", f"{file}: is a folder and no file", remedy) from error
    except PermissionError as error:
        remedy = "allow reading it (chmod u+r), or ask its owner to"
        raise DataError("unreadable", f"{file}: cannot be read ({error.strerror})", remedy) from error
    except OSError as error:
        raise DataError("unreadable", f"{file}: cannot be read ({error.strerror})", "check the data folder") from error


def read_text(file: Path) -> str:
    """The content of a file in UTF-8; UserError if it is in another encoding."""
    try:
        return read_bytes(file).decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise UserError(f"{file}: not UTF-8 ({error.reason} at byte {error.start}): save it as UTF-8") from error


def csv_rows(file: Path, delimiters: str) -> list[list[str]]:
    """The lines of a CSV that are not blank; between cells stands the first of `delimiters` that its first line has."""
    text = read_text(file)
    header = text.partition("\n")[0]
    delimiter = next((mark for mark in delimiters if mark in header), ",")
    try:
        # newline=None: a carriage return alone ends a line, too.
        rows = csv.reader(io.StringIO(text, newline=None), delimiter=delimiter)
        return [row for row in rows if any(map(str.strip, row))]
    except csv.Error as error:
        raise UserError(f"{file}: not valid CSV ({error}): correct it") from error


FILE_COLUMNS = ("file", "filename", "file name", "file_name", "image", "image_name", "photo", "path")
"""What the column of the files is called in a CSV, in lower case."""


def listed_path(text: str) -> str:
    """A file as seen from its folder, written in one way."""
    return text.strip().replace("\\", "/").removeprefix("./")


def parsed_json(file: Path) -> Any:
    """Whatever JSON a file holds, UserError if it is none."""
    try:
        return json.loads(read_bytes(file))
    except (ValueError, RecursionError) as error:  # the latter where it is nested beyond all measure
        raise UserError(f"{file}: not valid JSON ({error}): correct it") from error


def read_json(file: Path) -> dict[str, Any]:
    """The JSON object in a file, UserError if there is none."""
    content = parsed_json(file)
    if not isinstance(content, dict):
        raise UserError(f"{file}: holds a {type(content).__name__}: it must be a JSON object")
    return content
