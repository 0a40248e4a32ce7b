"""Which files count in a data folder, and reading them."""

from __future__ import annotations

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


def read_json(file: Path) -> dict[str, Any]:
    """The JSON object in a file, UserError if there is none."""
    try:
        content = json.loads(read_bytes(file))
    except (ValueError, RecursionError) as error:  # the latter where it is nested beyond all measure
        raise UserError(f"{file}: not valid JSON ({error}): correct it") from error
    if not isinstance(content, dict):
        raise UserError(f"{file}: holds a {type(content).__name__}: it must be a JSON object")
    return content
