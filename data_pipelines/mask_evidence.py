"""What the masks of a split show together: values that cannot mean what the class list says."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

import numpy as np
from jaxtyping import Bool, Integer

from data_pipelines.decode import decode_mask
from data_pipelines.faults import Fault
from data_pipelines.files import entries, read_bytes
from data_pipelines.folder_classes import FolderClasses
from larvseg_jax.errors import DataError

_ENOUGH = 8  # masks that are always looked at
_MOST = 64  # masks looked at while they show nothing but the first class and ignored pixels
_SMEARED_VALUES = 4  # a mask with fewer values that are no class has another class list, or a slip


def mask_faults(masks: Sequence[str], classes: FolderClasses, folder: Path) -> list[Fault]:
    """What the values in some masks of a split say against the class list: at most one fault.

    Args:
      masks: files of the masks of the split.
      classes: the class list.
      folder: of the masks of all splits.
    """
    if classes.values is None:
        return []  # coloured masks: every colour is checked as it is read
    seen: dict[int, str] = {}
    looked_at = _look(masks, classes, seen)
    fault = _of_other_values(seen, classes) or _of_a_lost_class(seen, classes, looked_at)
    if fault is not None and len(classes.names) > 2 and not _unknown(seen, classes):
        looked_at += _look(_all_masks(folder), classes, seen)  # a few photos may well show one class alone
        fault = _of_a_lost_class(seen, classes, looked_at)
    return [fault] if fault else []


def smeared(mask: Integer[np.ndarray, "h w"], wrong: Bool[np.ndarray, "h w"]) -> bool:
    """Whether the `wrong` pixels are what lossy compression or smooth resizing leaves: many values, strewn about.

    In an area of a class, pixels beside each other are alike; smeared ones are not.
    """
    if len(np.unique(mask[wrong])) < _SMEARED_VALUES:
        return False
    both = wrong[:, 1:] & wrong[:, :-1]
    alike = both & (mask[:, 1:] == mask[:, :-1])
    return bool(np.count_nonzero(alike) < np.count_nonzero(wrong) / 2)


def _look(masks: Sequence[str], classes: FolderClasses, seen: dict[int, str]) -> int:
    """Adds value -> first file of some of the masks, evenly spread; returns how many were read."""
    count = 0
    first = {classes.values[0] if classes.values else 0, classes.ignored_value}
    spread = np.unique(np.linspace(0, len(masks) - 1, min(_MOST, len(masks))).round().astype(int))
    for place in np.random.default_rng(0).permutation(spread):
        if count >= _ENOUGH and seen.keys() - first:
            break
        with contextlib.suppress(DataError):  # raised when the mask is read
            mask = decode_mask(read_bytes(masks[place]), masks[place], grey_in_colour=True)
            for value in np.unique(mask).tolist():
                seen.setdefault(value, masks[place])
            count += 1
    return count


def _all_masks(folder: Path) -> list[str]:
    """The masks of all splits."""

    def walk(folder: Path) -> Iterator[str]:
        for entry in entries(folder):
            if entry.is_dir():
                yield from walk(Path(entry.path))
            elif entry.name.lower().endswith(".png"):
                yield entry.path

    return sorted(walk(folder))


def _unknown(seen: Mapping[int, str], classes: FolderClasses) -> set[int]:
    return seen.keys() - set(classes.values or ()) - {classes.ignored_value}


def _of_other_values(seen: Mapping[int, str], classes: FolderClasses) -> Fault | None:
    """As many values as classes, but other ones: 0, 127 and 255 for three classes."""
    unknown, count = _unknown(seen, classes), len(classes.names)
    if not unknown or len(seen) != max(count, 2):
        return None
    values = sorted(seen)
    what = (
        f"{seen[min(unknown)]}: value {min(unknown)} is no class of {classes.file}; the masks hold "
        f"{', '.join(map(str, values))}, as many values as it has classes"
    )
    names = classes.names if count > 1 else ("background", *classes.names)
    numbering = _numbering(values, names, classes)
    return Fault("meaning", what, f"if they are these classes in order, {numbering}; else correct the masks")


def _of_a_lost_class(seen: Mapping[int, str], classes: FolderClasses, looked_at: int) -> Fault | None:
    """Nothing but the first class and ignored pixels: masks of 0 and 255, where 255 is the other class."""
    values, ignored = classes.values or (0,), classes.ignored_value
    if classes.ignore_given or ignored is None or set(seen) != {values[0], ignored}:
        return None
    names = classes.names if len(classes.names) > 1 else ("background", *classes.names)
    others = ", ".join(repr(name) for name in names[1:4]) + (", ..." if len(names) > 4 else "")
    what = (
        f"{seen[ignored]}: value {ignored} is ignored, and the {looked_at} masks looked at hold nothing else but "
        f"{values[0]}, so that they show nothing of {others}"
    )
    mean = _numbering([values[0], ignored], names[:2], classes)
    keep = '"ignore": 255' if classes.file.suffix == ".json" else f"number all lines and add '{ignored}: ignore'"
    return Fault("meaning", what, f"if {ignored} is {names[1]!r}, {mean}; if it is to be ignored, {keep}")


def _numbering(values: Sequence[int], names: Sequence[str], classes: FolderClasses) -> str:
    """How to say in the class list which value each class has."""
    if classes.file.suffix == ".json":
        return f'add "values": {list(values)} to {classes.file.name}'
    lines = ", ".join(f"'{value}: {name}'" for value, name in list(zip(values, names, strict=True))[:4])
    return f"write {classes.file.name} as {lines}{', ...' if len(values) > 4 else ''}, a line each"
