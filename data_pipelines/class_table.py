"""Lists of classes as tools and people write them: names alone, or with mask values or colours in the lines.

road                      the line's number is the mask value
0: road   0 road   road,0   a mask value in every line
road,128,64,128           a colour in every line (CamVid: the colour first)
0,road,128,64,128         both
name,r,g,b                a first line with the names of columns (Pixel Value, Class: Roboflow)
# label:color_rgb:parts:actions       CVAT's labelmap.txt
__ignore__                labelme's first line, which stands for -1
"""

from __future__ import annotations

import csv
import dataclasses
import re
from collections.abc import Sequence
from pathlib import Path

from larvseg_jax.errors import UserError


@dataclasses.dataclass(frozen=True)
class ClassTable:
    """What a list says.

    Attributes:
      names: of the classes.
      values: mask value of each; None where the list gives none.
      colours: [red, green, blue] of each; None where the list gives none.
      reading: how its lines were read, for people; "" where they are names alone.
    """

    names: tuple[str, ...]
    values: tuple[int, ...] | None = None
    colours: tuple[list[int], ...] | None = None
    reading: str = ""


_GAP = r"[\s,;:|=()\[\]]+"
_LINE = re.compile(
    rf"[\s(\[]*(?P<before>(?:\d+(?:{_GAP}|[.\-](?=\s)\s*))*)(?P<name>.*?)(?P<after>(?:{_GAP}\d+)*)[\s,;:|)\]]*"
)
_HEX = re.compile(r"#([0-9a-fA-F]{2})([0-9a-fA-F]{2})([0-9a-fA-F]{2})\b")
_CVAT = re.compile(r"(?P<name>[^:]+):(?:(\d+),(\d+),(\d+))?:[^:]*:[^:]*")
_NAMES = ("name", "classname", "labelname", "class", "label", "category")  # columns, the likelier ones first
_VALUES = ("pixelvalue", "maskvalue", "value", "pixel", "id", "classid", "labelid", "categoryid", "index", "number")
_COLOURS = ("color", "colour", "rgb", "colorrgb", "hex")
_RGB = (("r", "g", "b"), ("red", "green", "blue"))
_IGNORED_TRAIN_IDS = (255, -1)


def read_table(lines: Sequence[str], file: Path) -> ClassTable:
    """The classes in the lines of a list.

    Raises:
      UserError: lines that contradict each other, or a kind of table that cannot be read.
    """
    lines = [line.strip() for line in lines]
    if any(re.match(r"Label\s*\(", line) for line in lines):
        remedy = "write a line per class with the value in your masks and its name, such as 7: road"
        raise UserError(f"{file}: this is the table in Cityscapes' labels.py, with ids and train ids: {remedy}")
    of_cvat = re.sub(r"[\s#]", "", lines[0]).lower().startswith("label:color_rgb") if lines else False
    lines = _without_comments(lines, file)
    if of_cvat or all(_CVAT.fullmatch(line) for line in lines):
        return _cvat(lines, file)
    table = _with_header(lines, file) or _by_shape(lines, file)
    if table is not None:
        return table
    if lines[:2] == ["__ignore__", "_background_"]:
        return ClassTable(tuple(lines[1:]), reading=f"{lines[0]!r} is labelme's -1, so that {lines[1]!r} is value 0")
    return ClassTable(tuple(lines))


def _without_comments(lines: Sequence[str], file: Path) -> list[str]:
    """The lines of classes; no empty one may be between them."""
    kept = [(i, line) for i, line in enumerate(lines) if not line.startswith("# ")]
    while kept and not kept[-1][1]:
        kept.pop()
    if not kept:
        raise UserError(f"{file} is empty: write one class name per line, in the order of the mask values 0, 1, 2, ...")
    for place, (i, line) in enumerate(kept):
        if not line:
            raise UserError(f"{file}: line {i + 1} is empty and would be mask value {place}: name it")
    return [line for _, line in kept]


def _cvat(lines: Sequence[str], file: Path) -> ClassTable:
    names, colours = [], []
    for line in lines:
        match = _CVAT.fullmatch(line)
        if match is None:
            raise UserError(
                f"{file}: {line!r} is no line of CVAT's labelmap (label:color_rgb:parts:actions): correct it"
            )
        names.append(match["name"].strip())
        colours.append([int(v) for v in match.groups()[1:] if v is not None])
    if not any(colours):
        return ClassTable(tuple(names), reading="CVAT's labelmap without colours: its order is that of the mask values")
    reading = f"CVAT's labelmap: {lines[0]!r} is read as colour {colours[0]}, class {names[0]!r}"
    return ClassTable(tuple(names), None, tuple(colours), reading)


def _with_header(lines: Sequence[str], file: Path) -> ClassTable | None:
    """A table whose first line names its columns; None if it is none."""
    delimiter = next((d for d in "\t;," if d in lines[0]), None)
    if delimiter is None:
        return None
    rows = list(csv.reader(lines, delimiter=delimiter, skipinitialspace=True))
    columns = {re.sub(r"[^a-z]", "", cell.lower()): i for i, cell in reversed(list(enumerate(rows[0])))}
    if "filename" in columns:
        remedy = "export the data set with masks, or write classes.txt, one class name per line"
        raise UserError(f"{file}: this table has a line per photo, not per class: {remedy}")
    name = next((columns[c] for c in _NAMES if c in columns), None)
    value = next((columns[c] for c in _VALUES if c in columns), None)
    train_id = columns.get("trainid", columns.get("trainids"))
    colour = next(([columns[c]] for c in _COLOURS if c in columns), None)
    colour = next(([columns[c] for c in rgb] for rgb in _RGB if all(c in columns for c in rgb)), colour)
    if name is None or (value is None and train_id is None and colour is None):
        return None
    if value is not None and train_id is not None:
        raise UserError(f"{file}: it gives ids and train ids: keep the column whose numbers your masks hold")
    names, values, colours = [], [], []
    for line, row in zip(lines[1:], rows[1:], strict=True):
        try:
            if train_id is not None and int(row[train_id]) in _IGNORED_TRAIN_IDS:
                continue
            names.append(row[name].strip())
            if value is not None or train_id is not None:
                values.append(int(row[value if value is not None else train_id or 0]))
            if colour is not None:
                colours.append(_colour(" ".join(row[i] for i in colour)))
        except (ValueError, IndexError):
            raise UserError(f"{file}: {line!r} does not fit the columns {lines[0]!r}: correct it") from None
    if not names:
        raise UserError(f"{file}: no class below the columns {lines[0]!r}: write one per line")
    return _table(names, values, colours, lines[1], file)


def _colour(text: str) -> list[int]:
    """[red, green, blue] of "128 64 128", "(128, 64, 128)" or "#804080"; ValueError if it is none."""
    numbers = [int(v) for v in re.findall(r"\d+", _decimal(text))]
    if len(numbers) not in (3, 4):
        raise ValueError(text)
    return numbers[:3]


def _decimal(line: str) -> str:
    return _HEX.sub(lambda match: " ".join(str(int(v, 16)) for v in match.groups()), line)


def _by_shape(lines: Sequence[str], file: Path) -> ClassTable | None:
    """A table whose lines have as many numbers each, before and after the name; None if there are only names."""
    parts = [_parts(line) for line in lines]
    shapes = [(len(before), len(after)) for before, _, after, _ in parts]
    marked = [shape != (0, 0) and is_marked for shape, (*_, is_marked) in zip(shapes, parts, strict=True)]
    counting = sum(before[:1] == [i] for i, (before, *_) in enumerate(parts))
    if len(set(shapes)) > 1:
        if 2 * sum(marked) < len(lines) and (counting < 3 or 2 * counting < len(lines)):
            return None  # names that happen to have a number
        usual = max(shapes, key=shapes.count)
        other = next(line for line, shape in zip(lines, shapes, strict=True) if shape != usual)
        example = lines[shapes.index(usual)]
        raise UserError(f"{file}: {other!r} is not written as the other lines, such as {example!r}: make them alike")
    (before_count, after_count) = shapes[0]
    names = [name for _, name, _, _ in parts]
    numbers = [before + after for before, _, after, _ in parts]
    if before_count + after_count == 1:
        values = [line[0] for line in numbers]
        sure = all(marked) and before_count
        if not sure and (len(set(values)) < len(lines) or len(set(names)) < len(lines)):
            return None  # "wall 1", "wall 2"
        return _table(names, values, [], lines[0], file)
    count = len(numbers[0])
    if count in (4, 5) and all(line[-1] == 255 for line in numbers) and after_count == 4:
        numbers = [line[:-1] for line in numbers]  # an opaque colour
        count -= 1
    if count in (3, 4) and (before_count, after_count) in ((0, 3), (3, 0), (1, 3), (4, 0), (0, 4), (1, 4)):
        values = [line[0] for line in numbers] if count == 4 else []
        return _table(names, values, [line[-3:] for line in numbers], lines[0], file)
    if not any(shapes[0]) or not all(marked):
        return None
    raise UserError(
        f"{file}: it is not clear what the numbers in {lines[0]!r} mean: write lines such as 7: road (mask value, "
        "name) or road,128,64,128 (name, colour)"
    )


def _parts(line: str) -> tuple[list[int], str, list[int], bool]:
    """Numbers before the name, name, numbers after it; and whether more than blanks part them."""
    match = _LINE.fullmatch(_decimal(line.replace('"', "")))
    if match is None or not re.search(r"[^\d\W]", match["name"]):
        return [], line, [], False
    before, after = match["before"], match["after"]
    numbers = [[int(v) for v in re.findall(r"\d+", text)] for text in (before, after)]
    marked = re.search(r"[,;:|=\t.()\[\]]", before + after) is not None
    return numbers[0], match["name"].strip(" -'\t"), numbers[1], marked


def _table(names: list[str], values: list[int], colours: list[list[int]], example: str, file: Path) -> ClassTable:
    """The table, if its values are ones; `example` is the line of the first class."""
    check_values(values, names, file)
    meaning = [f"value {values[0]}"] if values else []
    meaning += [f"colour {colours[0]}"] if colours else []
    reading = f"{example!r} is read as {' and '.join(meaning)}, class {names[0]!r}"
    return ClassTable(tuple(names), tuple(values) or None, tuple(colours) or None, reading)


def check_values(values: Sequence[int], names: Sequence[str], file: Path) -> None:
    """UserError for a mask value that is none, or that two classes have."""
    seen: dict[int, str] = {}
    for value, name in zip(values, names, strict=bool(values)):
        if not 0 <= value < 2**16 - 1:
            raise UserError(f"{file}: {name!r} has the value {value}: mask values are 0 to 65534")
        if value in seen:
            raise UserError(f"{file}: {seen[value]!r} and {name!r} have the same value {value}: give each its own")
        seen[value] = name
