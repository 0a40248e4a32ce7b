"""Photos, masks and image labels in a plain folder, in one of two layouts.

Split by sub-folder:
  images/<split>/<stem>.jpg|jpeg|png|webp|bmp|tif
  masks/<split>/<stem>.png      class ids or colours, see folder_classes.py
  classes.txt or classes.json

Split by a file (which decides, where it exists):
  images/<stem>.jpg|...  masks/<stem>.png
  classes.txt or classes.json
  splits.json                   {"train": [stems], ..., "image_labels": {stem: [class ids]}}
"""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any, SupportsIndex

from data_pipelines.decode import decode_image, decode_mask
from data_pipelines.examples import Example, LabelMap
from data_pipelines.files import PICTURES, entries, picture_names, read_bytes, read_json
from data_pipelines.folder_classes import read_classes
from larvseg_jax.errors import UserError
from larvseg_jax.vocabulary import LabelSet


class FolderSource:
    """One split of a folder as a random-access source of Examples.

    The constructor checks what needs no decoding (files there, labels within the class list);
    mask values and sizes are checked as each photo is read.

    Args:
      folder: the data folder.
      split: a folder in images/; with a splits.json, a key of it; dots go into nested objects
        ("suggested.train_masks").
      label_set: the stream's classes, matched by name with those of the folder.
      masks: give each Example its `label`.
      tags: give each Example its `tags`, from `image_labels` of splits.json.
    """

    def __init__(self, folder: Path, split: str, label_set: LabelSet, *, masks: bool, tags: bool) -> None:
        if not folder.is_dir():
            raise UserError(
                f"data folder {folder} does not exist: point --config.data_root= or the environment "
                "variable LARVSEG_DATA at the folder that holds it"
            )
        classes = read_classes(folder)
        self._colours = classes.colours
        self._label_map = LabelMap.build(classes.names, classes.ignore, label_set, str(classes.file))
        splits_file = folder / "splits.json"
        self._tags = None
        if splits_file.exists():
            splits = read_json(splits_file)
            self._stems = _stems(splits, split, splits_file)
            images, mask_folder, remedy = folder / "images", folder / "masks", f"add it or take it out of {splits_file}"
            self._images = _find(images, self._stems, PICTURES, remedy)
            self._tags = self._read_tags(splits, splits_file) if tags else None
        else:
            if tags:
                raise UserError(
                    f"{folder} has no splits.json, whose `image_labels` are the tags of its photos: write it, or take "
                    "tags from the masks (tags_from='crop')"
                )
            images, mask_folder = _split_folder(folder, split), folder / "masks" / split
            self._stems = list(dict.fromkeys(os.path.splitext(name)[0] for name in picture_names(images)))
            remedy = f"add it or take its photo out of {images}"
            self._images = _find(images, self._stems, PICTURES, remedy)
        self._masks = _find(mask_folder, self._stems, (".png",), remedy) if masks else None

    def __len__(self) -> int:
        return len(self._stems)

    def __getitem__(self, index: SupportsIndex) -> Example:
        stem = self._stems[index]
        image_file = self._images[index]
        image = decode_image(read_bytes(image_file), image_file)
        example: Example = {"id": stem, "image": image}
        if self._masks is not None:
            mask_file = self._masks[index]
            data = read_bytes(mask_file)
            mask = self._colours.decode(data, mask_file) if self._colours else decode_mask(data, mask_file)
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


def _split_folder(folder: Path, split: str) -> Path:
    """images/<split>; UserError says which splits there are, and of pictures that lie beside them."""
    images = folder / "images"
    if not images.is_dir():
        raise UserError(f"{images} does not exist: put the photos of split {split!r} into {images / split}/")
    found = images / split
    if not found.is_dir():
        there = sorted(entry.name for entry in entries(images) if entry.is_dir())
        has = f"it has the folders {', '.join(there)}" if there else "it has no folders"
        raise UserError(f"{found} does not exist, {has}: put the photos of split {split!r} into {found}/")
    if not picture_names(found):
        raise UserError(f"{found} holds no pictures: put the photos of split {split!r} into it")
    return found


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


def _find(folder: Path, stems: list[str], extensions: tuple[str, ...], remedy: str) -> list[str]:
    """Path of every stem's file; one listing of the folder instead of a look-up per stem."""
    if not folder.is_dir():
        raise UserError(f"{folder} does not exist: it must hold {stems[0]}{extensions[0]} and {len(stems) - 1} more")
    files: dict[str, str] = {}
    wanted = set(stems)
    others = []
    for name in sorted(entry.name for entry in entries(folder)):
        stem, extension = os.path.splitext(name)
        if extension.lower() not in extensions or stem not in wanted:
            others.append(name)
            continue
        if stem in files:
            raise UserError(f"{files[stem]} and {folder / name} are both photo {stem!r}: remove one")
        files[stem] = str(folder / name)
    missing = [stem for stem in stems if stem not in files]
    if missing:
        first = missing[0]
        similar = [name for name in others if name.startswith(first)]
        instead = f", there is {similar[0]}" if similar else ""
        raise UserError(
            f"{folder / first}{extensions[0]} does not exist{instead} ({len(missing)} of {len(stems)} files "
            f"missing): {remedy}"
        )
    return [files[stem] for stem in stems]
