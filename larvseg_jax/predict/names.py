"""Where the files of a prediction go: no file is ever replaced but those of an earlier prediction of the same photo."""

from __future__ import annotations

import itertools
import json
import os
import tempfile
import unicodedata
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from larvseg_jax.console import printable
from larvseg_jax.errors import UserError

FORMATS = ("coco", "labelstudio", "polygons")
"""What `exports.py` writes, as it stands in --format and in the names of files."""


def label_file(target: Path) -> Path:
    """The label map beside an overlay."""
    return target.with_name(f"{target.stem}_labels.png")


def colour_file(target: Path) -> Path:
    """The coloured label map beside an overlay."""
    return target.with_name(f"{target.stem}_colours.png")


def export_file(target: Path, form: str) -> Path:
    """The file of an export of that format beside an overlay."""
    return target.with_name(f"{target.stem}_{form}.json")


def text_file(target: Path) -> Path:
    """The JSON file beside an overlay."""
    return target.with_name(f"{target.stem}.json")


def in_utf8(path: str) -> str:
    """A path as a text file in UTF-8 is to hold it, whatever encoding the terminal says file names have."""
    return os.fsencode(path).decode("utf-8", "surrogateescape")


def targets(photos: Sequence[Path], out: Path) -> list[Path]:
    """Where each photo's overlay goes; the other files are named after it.

    A prediction is called as its photo. Where one of its files is there already, or will be that of another photo of
    `photos`, it is called photo_2, photo_3 and so on; an earlier prediction of the same photo is replaced. Names that
    differ in case only count as one: not every file system tells them apart.

    Args:
      photos: paths of photos.
      out: a folder, or for one photo a name ending in .png, which is taken as it is.

    Raises:
      UserError: `out` does not fit, cannot be written, or names a file that is no prediction.
    """
    if out.suffix.lower() == ".png" and not out.is_dir():
        if len(photos) > 1:
            raise UserError(f"--out={printable(out)} is one file for {len(photos)} photos: give a folder")
        _check_free(out, photos[0])
        _check_writable(out.parent)
        return [out]
    _check_writable(out)
    there = {_key(entry) for entry in os.listdir(out)} if out.is_dir() else set()
    taken: set[str] = set()

    def is_free(target: Path, photo: Path) -> bool:
        keys = _keys(target)
        own = {_key(file.name) for file in files_there(target)}
        return not keys & taken and (not keys & there or (_is_of(target, photo) and keys & there <= own))

    found = []
    for photo in photos:
        candidates = (out / f"{stem}.png" for stem in _stems(photo))
        found.append(next(target for target in candidates if is_free(target, photo)))
        taken |= _keys(found[-1])
    return found


def is_part_of_prediction(file: Path) -> bool:
    """Whether a picture is one of a prediction, as the JSON file beside it says."""
    stems = {file.stem, file.stem.removesuffix("_labels"), file.stem.removesuffix("_colours")}
    return any(file in files_there(file.with_name(f"{stem}.png")) for stem in stems)


def _stems(photo: Path) -> Iterator[str]:
    yield photo.stem
    yield from (f"{photo.stem}_{number}" for number in itertools.count(2))


def _files(target: Path) -> tuple[Path, ...]:
    """All that a prediction may consist of, whatever was asked for."""
    pictures = target, label_file(target), colour_file(target)
    return *pictures, text_file(target), *(export_file(target, form) for form in FORMATS)


def files_there(target: Path) -> list[Path]:
    """The files that an earlier prediction of that name has written; [] if there is none."""
    names = _summary(target).get("files")
    known = {in_utf8(file.name): file for file in _files(target)}
    if not isinstance(names, list):  # of the code before 27 November 2026
        own = (target, label_file(target), text_file(target)) if _summary(target) else ()
        names = [in_utf8(file.name) for file in own]
    return [known[name] for name in names if name in known]


def _keys(target: Path) -> set[str]:
    return {_key(file.name) for file in _files(target)}


def _key(name: str) -> str:
    """Equal for names that some file system takes for the same."""
    return unicodedata.normalize("NFC", name).casefold()


def _summary(target: Path) -> dict[str, Any]:
    """What the JSON file of a prediction holds; {} if there is none, or it is somebody else's."""
    try:
        content = json.loads(text_file(target).read_bytes())
    except (OSError, ValueError):
        return {}
    own = isinstance(content, dict) and content.get("label_map") == in_utf8(label_file(target).name)
    return content if own and isinstance(content.get("photo"), str) else {}


def _is_of(target: Path, photo: Path) -> bool:
    """Whether the prediction that is there is one of this photo."""
    summary = _summary(target)
    return bool(summary) and os.path.abspath(summary["photo"]) == in_utf8(os.path.abspath(photo))


def _check_free(target: Path, photo: Path) -> None:
    """UserError if a prediction of that very name would replace anything but a prediction."""
    for file in _files(target):
        if file.exists() and photo.exists() and file.samefile(photo):
            raise UserError(f"{printable(file)} is the photo itself and would be overwritten: give another --out")
        if file.exists() and file not in files_there(target):
            raise UserError(f"{printable(file)} is there and is no prediction: give another --out, or move it away")


def _check_writable(folder: Path) -> None:
    """UserError if files cannot be written to a folder, or it cannot be made; leaves nothing behind."""
    there = next((parent for parent in (folder, *folder.absolute().parents) if parent.exists()), Path("."))
    try:
        with tempfile.TemporaryFile(dir=there):
            pass
    except OSError as error:
        reason = f"{printable(there)}: {error.strerror}"
        raise UserError(f"cannot write to {printable(folder)} ({reason}): give another --out") from error
