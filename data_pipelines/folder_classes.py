"""The class list of a data folder: what the values, or the colours, of its masks mean."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Integer

from data_pipelines.class_table import ClassTable, check_values, read_table
from data_pipelines.decode import decode_mask
from data_pipelines.files import entries, read_bytes
from data_pipelines.mask_tables import UNLABELLED_ID, ColourTable, ValueTable, unused_ignore
from data_pipelines.picture_files import MAX_MEGAPIXELS
from larvseg_jax.errors import UserError

_LISTS = ("classes.json", "labelmap.txt", "classes.txt", "_classes.csv")  # the first that is there counts
_OWN_KEYS = {"names", "ignore", "values", "colours", "colors"}


@dataclasses.dataclass(frozen=True)
class FolderClasses:
    """Classes of a data folder.

    Attributes:
      names: class names by class id.
      ignore: class id of pixels without class, None if there is none.
      table: how masks become class ids; None where they hold these.
      file: where this was read.
      ignore_given: whether the list says itself what is ignored.
      reading: how a list that is more than names was read, one line; else "".
    """

    names: tuple[str, ...]
    ignore: int | None
    table: ColourTable | ValueTable | None
    file: Path
    ignore_given: bool = False
    reading: str = ""

    @property
    def values(self) -> tuple[int, ...] | None:
        """Mask value of each class; None where masks are coloured."""
        if isinstance(self.table, ColourTable):
            return None
        return self.table.values if self.table else tuple(range(len(self.names)))

    @property
    def ignored_value(self) -> int | None:
        """What masks hold where a pixel has no class; None if nothing does, or a colour."""
        if isinstance(self.table, ColourTable):
            return None
        return self.table.ignore if self.table else self.ignore

    def decode(self, data: bytes, name: str, max_megapixels: int = MAX_MEGAPIXELS) -> Integer[np.ndarray, "h w"]:
        """Class ids of a mask file; DataError if it is none, too large, or has a value or colour without class."""
        if self.table:
            return self.table.decode(data, name, max_megapixels)
        return decode_mask(data, name, max_megapixels, grey_in_colour=True)


def read_classes(folder: Path) -> FolderClasses:
    """The classes of a data folder: of classes.json, CVAT's labelmap.txt, classes.txt or Roboflow's _classes.csv.

    The first of these that is there decides. Text (class_table.py) has one name per line: the first is mask value 0,
    the next 1, and so on, unless the lines give values or colours; 255 is ignored (65535 where 255 or more is a class).
    classes.json has {"names": [...]} in the same order; optionally "values", the mask value of each, "ignore", the
    value of pixels without class, and "colours" ("colors"), one [red, green, blue] per name for masks that are coloured
    pictures; the value of "ignore" is then a colour as well. COCO's categories and {"0": "road"} are read, too.

    Raises:
      UserError: no list, or one that is wrong.
    """
    there = [folder / name for name in _LISTS if (folder / name).exists()]
    if not there:
        others = sorted(e.name for e in entries(folder) if Path(e.name).suffix in (".txt", ".csv", ".json", ".names"))
        others = [name for name in others if name != "splits.json"]
        found = f", only {', '.join(others)} (is it one of them? rename it to classes.txt)" if others else ""
        raise UserError(
            f"{folder} has neither classes.json nor classes.txt{found}: write classes.txt, one class name per line in "
            "the order of the mask values 0, 1, 2, ..."
        )
    file = there[0]
    if file.suffix == ".json":
        return _from_json(file)
    classes = _from_text(file)
    if file.name == "labelmap.txt" and len(there) > 1:
        other = _from_text(there[1])
        if other.names != classes.names:
            raise UserError(f"{file} and {there[1]} list different classes, or another order: remove one of the two")
    return classes


def _from_text(file: Path) -> FolderClasses:
    try:
        text = read_bytes(file).decode("utf-8-sig")  # Windows editors put a byte order mark first
    except UnicodeDecodeError as error:
        raise UserError(f"{file}: byte {error.start} is not UTF-8: save it in that encoding") from error
    return _classes(read_table(text.splitlines(), file), file)


def _classes(table: ClassTable, file: Path) -> FolderClasses:
    """The classes of a list, in the order of their values."""
    names, values, reading = table.names, table.values, f"{file}: {table.reading}" if table.reading else ""
    if table.colours is not None:
        numbers = values or tuple(range(len(names)))
        colours = ColourTable.build(names, list(table.colours), None, file, numbers)
        return FolderClasses(names, UNLABELLED_ID, colours, file, reading=reading)
    if values is None:
        return FolderClasses(names, unused_ignore(range(len(names))), None, file, reading=reading)
    order = sorted(range(len(names)), key=values.__getitem__)
    names, values = tuple(names[i] for i in order), tuple(values[i] for i in order)
    ignore = unused_ignore(values)
    if values == tuple(range(len(values))):
        return FolderClasses(names, ignore, None, file, reading=reading)
    given = 255 in values
    return FolderClasses(names, UNLABELLED_ID, ValueTable(values, ignore, str(file)), file, given, reading)


def _from_json(file: Path) -> FolderClasses:
    try:
        content = json.loads(read_bytes(file))
    except ValueError as error:
        raise UserError(f"{file}: not valid JSON ({error}): correct it") from error
    listed = _json_table(content, file)
    if listed is not None:
        return _classes(listed, file)
    names, ignore, values = content.get("names"), content.get("ignore"), content.get("values")
    if not _are_names(names):
        raise UserError(f"{file}: `names` must be the list of class names, in the order of the mask values")
    colours = content.get("colours", content.get("colors"))
    if colours is not None:
        table = ColourTable.build(names, colours, ignore, file)
        return FolderClasses(tuple(names), UNLABELLED_ID, table, file, ignore is not None)
    if ignore is not None and not (isinstance(ignore, int) and 0 <= ignore < 2**16):
        raise UserError(f"{file}: `ignore` is {ignore!r}: give a mask value from 0 to 65535, or leave it out")
    if values is None:
        return FolderClasses(tuple(names), ignore, None, file, ignore is not None)
    if not isinstance(values, list) or len(values) != len(names) or not all(type(v) is int for v in values):
        raise UserError(f"{file}: `values` must be a list of {len(names)} numbers, the mask value of every class")
    check_values(
        values if ignore is None else [*values, ignore], [*names, "ignore"][: len(names) + (ignore is not None)], file
    )
    ignore = unused_ignore(values) if ignore is None else ignore
    return FolderClasses(tuple(names), UNLABELLED_ID, ValueTable(tuple(values), ignore, str(file)), file, True)


def _json_table(content: Any, file: Path) -> ClassTable | None:
    """Classes as other tools write them into JSON; None if it is our own form."""
    if isinstance(content, dict):
        for key in ("categories", "id2label", "label2id"):
            content = content.get(key, content) if isinstance(content, dict) else content
        if isinstance(content, dict) and isinstance(content.get("names"), dict):
            content = content["names"]
    if isinstance(content, dict) and _OWN_KEYS & content.keys():
        return None
    if _are_names(content):
        return ClassTable(tuple(content))
    if (
        isinstance(content, list)
        and content
        and all(isinstance(c, dict) and _are_names([c.get("name")]) for c in content)
    ):
        ids, names = [c.get("id") for c in content], [c["name"] for c in content]
        return _numbered(ids, names, "a list of categories", file)
    if not isinstance(content, dict):
        raise UserError(f"{file}: holds a {type(content).__name__} that is no list of class names: write them into it")
    keys, values = list(content), list(content.values())
    if keys and all(key.isdecimal() for key in keys) and _are_names(values):
        return _numbered([int(key) for key in keys], values, "numbers and names", file)
    if keys and all(type(value) is int for value in values):
        return _numbered(values, keys, "names and numbers", file)
    if keys and all(isinstance(value, list) and len(value) == 3 for value in values):
        reading = f"names and colours: class {keys[0]!r} has colour {values[0]}"
        return ClassTable(tuple(keys), None, tuple(values), reading)
    return None


def _numbered(values: list[Any], names: list[str], what: str, file: Path) -> ClassTable:
    if all(value is None for value in values):
        return ClassTable(tuple(names))
    if not all(type(value) is int for value in values):
        raise UserError(f"{file}: not every class has a number as `id`, its mask value: add them")
    check_values(values, names, file)
    return ClassTable(tuple(names), tuple(values), None, f"{what}: value {values[0]} is class {names[0]!r}")


def _are_names(value: Any) -> bool:
    return isinstance(value, list) and bool(value) and all(isinstance(name, str) for name in value)
