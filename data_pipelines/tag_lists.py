"""Tags of photos as a list: tags.csv or tags.json in the folder of the pictures.

tags.csv: a header, then a line a photo. Names of classes hold no comma, semicolon or bar here.

  file,tags
  a.jpg,"car, bicycle"
  b/c.jpg,bicycle;person

  filename,car,bicycle      as Roboflow and others write them: 0 or 1 for every class
  a.jpg,1,1

tags.json: {"a.jpg": ["car", "bicycle"]}, or [{"file": "a.jpg", "tags": ["car", "bicycle"]}]; any name of a class.

A photo may have several lines, whose tags add up. Files are given as seen from the folder.
"""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from data_pipelines.faults import Fault
from data_pipelines.files import FILE_COLUMNS, csv_rows, listed_path, parsed_json
from larvseg_jax.errors import UserError

LISTS = ("tags.json", "tags.csv")
"""Names of such lists; the first that is there counts."""


def tag_list_of(folder: Path) -> Path | None:
    """The list in a folder; None if there is none."""
    return next((folder / name for name in LISTS if (folder / name).is_file()), None)


def read_tag_list(file: Path) -> tuple[dict[str, tuple[str, ...]], list[Fault]]:
    """Photo -> its tags, in the order of the list, and what is wrong with lines of it.

    Raises:
      UserError: the file cannot be read as such a list.
    """
    lines = _of_json(file) if file.suffix == ".json" else _of_csv(file)
    tags: dict[str, dict[str, None]] = {}
    for photo, names in lines:
        tags.setdefault(photo, {}).update(dict.fromkeys(names))
    faults = [
        Fault("files", f"{file}: {photo!r} has no tag", "name what it shows, or take it out of the list")
        for photo, names in tags.items()
        if not names
    ]
    return {photo: tuple(names) for photo, names in tags.items()}, faults


_COCO = {"images", "annotations"}  # captions have no "categories"


def _of_json(file: Path) -> Iterator[tuple[str, list[str]]]:
    for photo, names in _photos_of_json(file):
        if not isinstance(names, list) or not all(isinstance(name, str) and name.strip() for name in names):
            raise UserError(f"{file}: {photo!r} has the tags {names!r}: give a list of names of classes")
        yield listed_path(photo), [_name(name) for name in names]


def _photos_of_json(file: Path) -> Iterator[tuple[str, Any]]:
    """Every photo and what stands as its tags, of an object or of a list of objects."""
    content = parsed_json(file)
    if isinstance(content, dict):
        if content.keys() >= _COCO:
            form = '{"a.jpg": ["car", "person"]}'
            raise UserError(
                f"{file}: is an annotation file of COCO's form, not a list of tags: write {form}, for each file of its "
                "images the names of its annotations' categories (docs/own_data.md has the lines of Python)"
            )
        yield from content.items()
        return
    for entry in content if isinstance(content, list) else [content]:
        keys = [key for key in FILE_COLUMNS if isinstance(entry, dict) and isinstance(entry.get(key), str)]
        if not keys or "tags" not in entry:
            form = '{"a.jpg": ["car"]} or [{"file": "a.jpg", "tags": ["car"]}]'
            raise UserError(f"{file}: holds {str(entry)[:60]!r} where a photo and its tags are to stand: write {form}")
        yield entry[keys[0]], entry["tags"]


def _of_csv(file: Path) -> Iterator[tuple[str, list[str]]]:
    rows = csv_rows(file, ",\t;")
    if not rows or rows[0][0].strip().lower() not in FILE_COLUMNS or len(rows[0]) < 2:
        first = ",".join(rows[0])[:80] if rows else ""
        raise UserError(f"{file}: begins with {first!r}: its first line must name the columns, file,tags")
    names, body = [_name(name) for name in rows[0][1:]], rows[1:]
    cells = {cell.strip() for row in body for cell in row[1:]}
    marks = bool(cells) and cells <= {"0", "1", ""}
    for row in body:
        yield listed_path(row[0]), _marked(file, row, names) if marks else _split(row[1:])


def _marked(file: Path, row: list[str], names: list[str]) -> list[str]:
    """The classes marked by 1."""
    if len(row) != len(names) + 1:
        raise UserError(f"{file}: {row[0]!r} has {len(row) - 1} marks for {len(names)} classes: correct the line")
    return [name for name, mark in zip(names, row[1:], strict=True) if mark.strip() == "1"]


def _split(cells: list[str]) -> list[str]:
    return [_name(name) for cell in cells for name in re.split(r"[,;|]", cell) if name.strip()]


def _name(text: str) -> str:
    """A class as others write it: composed, as in class_listing.py."""
    return unicodedata.normalize("NFC", text.strip())
