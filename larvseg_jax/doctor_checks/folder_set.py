"""A plain data folder (data_pipelines/folder.py), opened so that all its faults are collected."""

from __future__ import annotations

import collections
import os
from pathlib import Path
from typing import Any

from data_pipelines.files import PICTURES, entries, read_bytes, read_json
from data_pipelines.folder_classes import FolderClasses, read_classes
from larvseg_jax.doctor_checks.raw_photos import PhotoSet, RawPhoto
from larvseg_jax.doctor_checks.trouble import Trouble
from larvseg_jax.errors import UserError


def open_folder(folder: Path, split: str, *, masks: bool, tags: bool) -> PhotoSet:
    """Opens one split of a folder; UserError where there is no class list, no split or no photo."""
    classes = read_classes(folder)
    labels: dict[str, Any] = {}
    troubles: list[Trouble] = []
    splits_file = folder / "splits.json"
    if splits_file.exists():
        image_folder, mask_folder = folder / "images", folder / "masks"
        splits = read_json(splits_file)
        stems = _stems(splits, split, splits_file, troubles)
        found = splits.get("image_labels", {})
        labels = found if isinstance(found, dict) else {}
        images = _by_stem(image_folder, PICTURES, stems, troubles)
        troubles += _missing(image_folder, stems, images, f"{splits_file}, split {split!r}", PICTURES[0])
        troubles += _tag_troubles(stems, labels, classes, splits_file) if tags else []
    else:
        image_folder, mask_folder = folder / "images" / split, folder / "masks" / split
        images = _by_stem(image_folder, PICTURES, None, troubles)
        stems = list(images)
    mask_files: dict[str, str] = {}
    if masks:
        mask_files = _by_stem(mask_folder, (".png",), None, troubles if splits_file.exists() else [])
        troubles += _missing(mask_folder, stems, mask_files, f"photos of {image_folder}", ".png")
        photos = images if not splits_file.exists() else _by_stem(image_folder, PICTURES, None, [])
        spare = [file for stem, file in mask_files.items() if stem not in photos]
        troubles += [Trouble("spare mask", f"{file} has no photo in {image_folder}") for file in spare]
    usable = [stem for stem in stems if stem in images and (not masks or stem in mask_files)]
    if not usable:
        raise UserError(f"{folder}, split {split!r} has no photo that could be used")

    def read(index: int) -> RawPhoto:
        stem = usable[index]
        mask = read_bytes(mask_files[stem]) if masks else None
        ids = labels.get(stem)
        known = tuple(i for i in ids if _is_class(i, classes)) if isinstance(ids, list) else None
        return RawPhoto(stem, images[stem], read_bytes(images[stem]), mask_files.get(stem, ""), mask, known)

    return PhotoSet(
        kind="folder",
        directory=folder,
        names=classes.names,
        ignore=classes.ignore,
        colours=classes.colours,
        count=len(usable),
        read=read,
        tags_checked=True,
        troubles=tuple(troubles),
    )


def _stems(splits: dict[str, Any], split: str, file: Path, troubles: list[Trouble]) -> list[str]:
    found: Any = splits
    for key in split.split("."):
        found = found.get(key) if isinstance(found, dict) else None
    if not isinstance(found, list):
        raise UserError(f"{file}: no split {split!r}")
    stems = [stem for stem in found if isinstance(stem, str)]
    odd = [stem for stem in found if not isinstance(stem, str)]
    troubles += [Trouble("files", f"{file}: split {split!r} holds {stem!r}, which is no file name") for stem in odd]
    twice = [stem for stem, times in collections.Counter(stems).items() if times > 1]
    troubles += [Trouble("files", f"{file}: split {split!r} lists {stem!r} more than once") for stem in twice]
    return list(dict.fromkeys(stems))


def _by_stem(
    folder: Path, extensions: tuple[str, ...], wanted: list[str] | None, troubles: list[Trouble]
) -> dict[str, str]:
    """Sorted files by name without extension; with wanted=None whatever does not belong there is a trouble."""
    if not folder.is_dir():
        troubles.append(Trouble("files", f"{folder} does not exist"))
        return {}
    files: dict[str, str] = {}
    known = None if wanted is None else set(wanted)
    for name in sorted(entry.name for entry in entries(folder)):
        stem, extension = os.path.splitext(name)
        if extension.lower() not in extensions:
            if known is None and extensions == PICTURES:
                troubles.append(Trouble("files", f"{folder / name} is no picture"))
        elif known is not None and stem not in known:
            continue
        elif stem in files:
            troubles.append(Trouble("files", f"{files[stem]} and {folder / name} are both photo {stem!r}"))
        else:
            files[stem] = str(folder / name)
    return files


def _missing(folder: Path, stems: list[str], files: dict[str, str], of: str, extension: str) -> list[Trouble]:
    missing = [stem for stem in stems if stem not in files]
    return [Trouble("files", f"{folder / stem}{extension} does not exist ({of})") for stem in missing]


def _tag_troubles(stems: list[str], labels: dict[str, Any], classes: FolderClasses, file: Path) -> list[Trouble]:
    troubles = []
    for stem in stems:
        ids = labels.get(stem)
        if not isinstance(ids, list):
            troubles.append(Trouble("tag", f"{file}: photo {stem!r} has no list of class ids in `image_labels`"))
            continue
        troubles += [
            Trouble(
                "tag",
                f"{file}, photo {stem!r}: image label {i!r} is not among the classes 0..{len(classes.names) - 1}",
            )
            for i in ids
            if not _is_class(i, classes)
        ]
    return troubles


def _is_class(value: Any, classes: FolderClasses) -> bool:
    return type(value) is int and 0 <= value < len(classes.names)
