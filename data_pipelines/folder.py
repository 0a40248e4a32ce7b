"""Photos, masks and image labels in a plain folder.

images/<stem>.jpg|jpeg|png
masks/<stem>.png              class ids of classes.json, or its `ignore` value
classes.json                  {"names": [...], "ignore": 255}
splits.json                   {"train": [stems], ..., "image_labels": {stem: [class ids]}}
"""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any, SupportsIndex

from data_pipelines.decode import decode_image, decode_mask
from data_pipelines.examples import Example, LabelMap
from larvseg_jax.errors import UserError
from larvseg_jax.vocabulary import LabelSet

_EXTENSIONS = (".jpg", ".jpeg", ".png")


class FolderSource:
    """One split of a folder as a random-access source of Examples.

    The constructor checks what needs no decoding (files there, labels within the class list);
    mask values and sizes are checked as each photo is read.

    Args:
      folder: the data folder.
      split: key of splits.json; dots go into nested objects ("suggested.train_masks").
      label_set: the stream's classes, matched by name with those of classes.json.
      masks: give each Example its `label`.
      tags: give each Example its `tags`, from `image_labels`.
    """

    def __init__(self, folder: Path, split: str, label_set: LabelSet, *, masks: bool, tags: bool) -> None:
        if not folder.is_dir():
            raise UserError(
                f"data folder {folder} does not exist: point --config.data_root= or the environment "
                "variable LARVSEG_DATA at the folder that holds it"
            )
        classes_file = folder / "classes.json"
        names, ignore = _read_classes(classes_file)
        self._label_map = LabelMap.build(names, ignore, label_set, str(classes_file))
        splits_file = folder / "splits.json"
        splits = _read_json(splits_file)
        self._stems = _stems(splits, split, splits_file)
        self._images = _find(folder / "images", self._stems, _EXTENSIONS, splits_file)
        self._masks = _find(folder / "masks", self._stems, (".png",), splits_file) if masks else None
        self._tags = self._read_tags(splits, splits_file) if tags else None

    def __len__(self) -> int:
        return len(self._stems)

    def __getitem__(self, index: SupportsIndex) -> Example:
        stem = self._stems[index]
        image_file = self._images[index]
        image = decode_image(_read(image_file), image_file)
        example: Example = {"id": stem, "image": image}
        if self._masks is not None:
            mask_file = self._masks[index]
            mask = decode_mask(_read(mask_file), mask_file)
            example["label"] = self._label_map.label(mask, image, mask_file)
        if self._tags is not None:
            example["tags"] = self._tags[index]
        return example

    def _read_tags(self, splits: dict[str, Any], file: Path) -> list:
        labels = splits.get("image_labels", {})
        if not isinstance(labels, dict):
            raise UserError(f"{file}: `image_labels` is a {type(labels).__name__}: it must map photos to class ids")
        missing = [stem for stem in self._stems if stem not in labels]
        if missing:
            raise UserError(
                f"{file}: photo {missing[0]!r} has no entry in `image_labels` ({len(missing)} of "
                f"{len(self._stems)} have none): add its class ids"
            )
        return [self._label_map.tags(labels[stem], f"{file}, photo {stem!r}") for stem in self._stems]


def _read_classes(file: Path) -> tuple[list[str], int | None]:
    classes = _read_json(file)
    names, ignore = classes.get("names"), classes.get("ignore")
    if not isinstance(names, list) or not names or not all(isinstance(n, str) for n in names):
        raise UserError(f"{file}: `names` must be the list of class names, in the order of the mask values")
    if ignore is not None and not (isinstance(ignore, int) and 0 <= ignore < 2**16):
        raise UserError(f"{file}: `ignore` is {ignore!r}: give a mask value from 0 to 65535, or leave it out")
    return names, ignore


def _stems(splits: dict[str, Any], split: str, file: Path) -> list[str]:
    found: Any = splits
    for key in split.split("."):
        found = found.get(key) if isinstance(found, dict) else None
    if not isinstance(found, list):
        raise UserError(f"{file}: no split {split!r}: it has {', '.join(_split_names(splits)) or 'none'}")
    if not found:
        raise UserError(f"{file}: split {split!r} is empty: list the photos' file names without extension")
    seen: set[str] = set()
    for stem in found:
        if not isinstance(stem, str):
            raise UserError(f"{file}: split {split!r} holds {stem!r}: write file names as strings")
        if stem in seen:
            raise UserError(f"{file}: split {split!r} lists {stem!r} twice: remove one")
        seen.add(stem)
    return found


def _split_names(splits: dict[str, Any], prefix: str = "") -> list[str]:
    """Dotted keys of all lists in splits.json, per-photo tables left out."""
    names = []
    for key, value in splits.items():
        if isinstance(value, list):
            names.append(prefix + key)
        elif isinstance(value, dict) and not prefix and not key.startswith("image_labels"):
            names += _split_names(value, f"{key}.")
    return names


def _find(folder: Path, stems: list[str], extensions: tuple[str, ...], splits_file: Path) -> list[str]:
    """Path of every stem's file; one listing of the folder instead of a look-up per stem."""
    if not folder.is_dir():
        raise UserError(f"{folder} does not exist: {splits_file} refers to files in it")
    files: dict[str, str] = {}
    wanted = set(stems)
    for name in sorted(os.listdir(folder)):
        stem, extension = os.path.splitext(name)
        if extension.lower() not in extensions or stem not in wanted:
            continue
        if stem in files:
            raise UserError(f"{files[stem]} and {folder / name} are both photo {stem!r}: remove one")
        files[stem] = str(folder / name)
    missing = [stem for stem in stems if stem not in files]
    if missing:
        raise UserError(
            f"{folder / missing[0]}{extensions[0]} does not exist ({len(missing)} of {len(stems)} files "
            f"missing): add it or take it out of {splits_file}"
        )
    return [files[stem] for stem in stems]


def _read_json(file: Path) -> dict[str, Any]:
    try:
        content = json.loads(_read(file))
    except ValueError as error:
        raise UserError(f"{file}: not valid JSON ({error}): correct it") from error
    if not isinstance(content, dict):
        raise UserError(f"{file}: holds a {type(content).__name__}: it must be a JSON object")
    return content


def _read(file: str | Path) -> bytes:
    try:
        with open(file, "rb") as stream:
            return stream.read()
    except OSError as error:
        raise UserError(f"{file}: cannot be read ({error.strerror}): check the data folder") from error
