"""What lies in a data folder, with all that is wrong in it: a source raises the first fault, the doctor shows all.

Photos, masks and image labels lie in one of two layouts.

Split by sub-folder:
  images/<split>/<stem>.jpg|jpeg|png|webp|bmp|tif
  masks/<split>/<stem>.png      class ids or colours, see folder_classes.py
  classes.txt or classes.json

Split by a file (which decides, where it exists):
  images/<stem>.jpg|...  masks/<stem>.png
  classes.txt or classes.json
  splits.json                   {"train": [stems], ..., "image_labels": {stem: [class ids]}}

Class folders are in class_listing.py, prepared data sets in prepared.py.
"""

from __future__ import annotations

import bisect
import collections
import dataclasses
import os
from collections.abc import Collection, Sequence
from pathlib import Path
from typing import Any, SupportsIndex

from data_pipelines.examples import RawPhoto, is_class_id, tag_faults
from data_pipelines.faults import Fault
from data_pipelines.files import PICTURES, entries, is_folder, leads_nowhere, read_bytes, read_json
from data_pipelines.folder_classes import FolderClasses, read_classes
from larvseg_jax.errors import DataError


@dataclasses.dataclass(frozen=True)
class FolderListing:
    """One split of a data folder.

    Attributes:
      classes: of the folder.
      stems: of the photos whose files are all there; without faults these are all photos of the split.
      images: picture file of each.
      masks: mask file of each; None if no masks are wanted.
      tags: class ids of each from `image_labels`, without those that are no class; None where there are none.
      faults: all that is wrong, as far as names, class list and splits.json tell.
    """

    classes: FolderClasses
    stems: tuple[str, ...]
    images: tuple[str, ...]
    masks: tuple[str, ...] | None
    tags: tuple[tuple[int, ...] | None, ...]
    faults: tuple[Fault, ...]

    def __len__(self) -> int:
        return len(self.stems)

    def read(self, index: SupportsIndex) -> RawPhoto:
        """Reads one photo and its mask; DataError if a file cannot be read. Safe to call from several threads."""
        image, mask = self.images[index], "" if self.masks is None else self.masks[index]
        data = read_bytes(mask) if mask else None
        return RawPhoto(self.stems[index], image, read_bytes(image), mask, data, self.tags[index])


def list_folder(folder: Path, split: str, *, masks: bool, tags: bool) -> FolderListing:
    """Lists one split of a data folder: each folder once, no picture is opened.

    Args:
      folder: the data folder.
      split: a folder in images/; with a splits.json, a key of it; dots go into nested objects
        ("suggested.train_masks").
      masks: every photo needs a mask.
      tags: every photo needs an entry in `image_labels` of splits.json.

    Raises:
      UserError: there is no such folder, or its class list or splits.json cannot be read.
    """
    if not folder.is_dir():
        raise DataError(
            "files",
            f"data folder {folder} does not exist",
            "point --config.data_root= or the environment variable LARVSEG_DATA at the folder that holds it",
        )
    classes = read_classes(folder)
    faults: list[Fault] = []
    labels: dict[str, tuple[int, ...]] = {}
    splits_file = folder / "splits.json"
    if splits_file.exists():
        image_folder, mask_folder = folder / "images", folder / "masks"
        remedy = f"add it or take it out of {splits_file}"
        splits = read_json(splits_file)
        stems = names_in_split(splits, split, splits_file, faults)
        pictures = _names(image_folder, faults)
        images = _files_of(stems, image_folder, pictures, PICTURES, remedy, faults)
        label_faults, labels = _image_labels(splits, stems, classes, splits_file)
        faults += label_faults if tags else []
    else:
        image_folder, mask_folder = folder / "images" / split, folder / "masks" / split
        remedy = f"add it or take its photo out of {image_folder}"
        if tags:
            what = f"{folder} has no splits.json, whose `image_labels` are the tags of its photos"
            faults.append(Fault("files", what, "write it, or take tags from the masks (tags_from='crop')"))
        pictures = _names_in_split_folder(folder / "images", split, faults)
        stems = list(dict.fromkeys(os.path.splitext(name)[0] for name in pictures))
        images = _files_of(stems, image_folder, pictures, PICTURES, remedy, faults)
    mask_files: dict[str, str] = {}
    if masks:
        names = _names(mask_folder, faults)
        mask_files = _files_of(stems, mask_folder, names, (".png",), remedy, faults)
        faults += _spare_masks(mask_folder, names or (), image_folder, pictures) if pictures else []
    there = [stem for stem in stems if stem in images and (not masks or stem in mask_files)]
    return FolderListing(
        classes=classes,
        stems=tuple(there),
        images=tuple(images[stem] for stem in there),
        masks=tuple(mask_files[stem] for stem in there) if masks else None,
        tags=tuple(labels.get(stem) for stem in there),
        faults=tuple(faults),
    )


def picture_names(folder: Path) -> tuple[list[str], list[Fault]]:
    """Sorted file names of the pictures in a folder, and what else lies there. No file is opened or asked for its size.

    Raises:
      DataError: the folder cannot be listed.
    """
    names, faults = [], []
    for entry in entries(folder):
        if leads_nowhere(entry):
            faults.append(Fault("files", f"{folder / entry.name} is a link that leads nowhere", "mend or remove it"))
        elif os.path.splitext(entry.name)[1].lower() in PICTURES:
            names.append(entry.name)
        elif is_folder(entry):
            remedy = f"pictures must lie in {folder} itself: move them there, or it away"
            faults.append(Fault("files", f"{folder / entry.name} is a folder", remedy))
        else:
            what = f"{folder / entry.name} is no picture ({', '.join(e[1:] for e in PICTURES)})"
            faults.append(Fault("files", what, "convert it or take it out of the folder"))
    names.sort()  # the same numbers on every file system
    faults.sort(key=lambda fault: fault.what)
    return names, faults


def _names_in_split_folder(images: Path, split: str, faults: list[Fault]) -> list[str]:
    """Names of the pictures in images/<split>; where there are none, the fault says which splits there are."""
    folder = images / split
    if not images.is_dir():
        faults.append(Fault("files", f"{images} does not exist", f"put the photos of split {split!r} into {folder}/"))
        return []
    if not folder.is_dir():
        there = sorted(entry.name for entry in entries(images) if is_folder(entry))
        what = f"it has the folders {', '.join(there)}" if there else "it has no folders"
        remedy = f"put the photos of split {split!r} into {folder}/"
        faults.append(Fault("files", f"{folder} does not exist, {what}", remedy))
        return []
    names, others = picture_names(folder)
    faults += others
    if not names:
        faults.append(Fault("files", f"{folder} holds no pictures", f"put the photos of split {split!r} into it"))
    return names


def names_in_split(splits: dict[str, Any], split: str, file: Path, faults: list[Fault]) -> list[str]:
    """The names that splits.json lists for a split, each once; what is wrong goes to `faults`."""
    found: Any = splits
    for key in split.split("."):
        found = found.get(key) if isinstance(found, dict) else None
    if not isinstance(found, list):
        what = f"it has {', '.join(split_names(splits)) or 'none'}"
        faults.append(Fault("files", f"{file}: no split {split!r}", what))
        return []
    if not found:
        remedy = "list the photos' file names without extension"
        faults.append(Fault("files", f"{file}: split {split!r} is empty", remedy))
    stems: dict[str, int] = collections.Counter()
    for stem in found:
        if not isinstance(stem, str):
            faults.append(Fault("files", f"{file}: split {split!r} holds {stem!r}", "write file names as strings"))
            continue
        stems[stem] += 1
        if stems[stem] == 2:
            faults.append(Fault("files", f"{file}: split {split!r} lists {stem!r} twice", "remove one"))
    return list(stems)


def split_names(splits: dict[str, Any], prefix: str = "") -> list[str]:
    """Dotted keys of all lists in splits.json, per-photo tables left out."""
    names = []
    for key, value in splits.items():
        if isinstance(value, list):
            names.append(prefix + key)
        elif isinstance(value, dict) and not prefix and not key.startswith("image_labels"):
            names += split_names(value, f"{key}.")
    return names


def _image_labels(
    splits: dict[str, Any], stems: Sequence[str], classes: FolderClasses, file: Path
) -> tuple[list[Fault], dict[str, tuple[int, ...]]]:
    """What is wrong with the image labels of the photos, and the labels that are classes."""
    labels = splits.get("image_labels", {})
    if not isinstance(labels, dict):
        what = f"{file}: `image_labels` is a {type(labels).__name__}"
        return [Fault("tag", what, "it must map photos to class ids")], {}
    missing = [stem for stem in stems if stem not in labels]
    among = f"({len(missing)} of {len(stems)} have none)"
    faults = [
        Fault("tag", f"{file}: photo {stem!r} has no entry in `image_labels`", "add its class ids", among)
        for stem in missing
    ]
    count = len(classes.names)
    if classes.values != tuple(range(count)) and classes.values is not None:
        what = f"{file}: `image_labels` are numbers of classes, and {classes.file} gives its classes other values"
        return [Fault("tag", what, "give both the numbers 0, 1, 2, ...")], {}
    known = {}
    for stem in stems:
        ids, name = labels.get(stem, []), f"{file}, photo {stem!r}"
        if not isinstance(ids, list):
            faults.append(Fault("tag", f"{name}: image labels are {ids!r}", "give a list of class ids"))
        elif stem in labels:
            faults += tag_faults(ids, count, name, str(classes.file))
            known[stem] = tuple(i for i in ids if is_class_id(i, count))
    return faults, known


def _names(folder: Path, faults: list[Fault]) -> list[str] | None:
    """Sorted names of what lies in a folder; None if it is not there or cannot be listed."""
    try:
        return sorted(entry.name for entry in entries(folder)) if folder.is_dir() else None
    except DataError as error:
        faults.append(Fault.of(error))
        return None


def _files_of(
    stems: Sequence[str],
    folder: Path,
    names: Sequence[str] | None,
    extensions: tuple[str, ...],
    remedy: str,
    faults: list[Fault],
) -> dict[str, str]:
    """Path of every stem's file among the sorted `names` in `folder` (None: there is no folder)."""
    if names is None:
        if stems and not folder.is_dir():
            content = f"it must hold {stems[0]}{extensions[0]} and {len(stems) - 1} more"
            faults.append(Fault("files", f"{folder} does not exist", content))
        return {}
    files: dict[str, str] = {}
    wanted = set(stems)
    others = []
    for name in names:
        stem, extension = os.path.splitext(name)
        if extension.lower() not in extensions or stem not in wanted:
            others.append(name)
        elif stem in files:
            what = f"{files[stem]} and {folder / name} are both photo {stem!r}"
            faults.append(Fault("files", what, "remove one"))
        else:
            files[stem] = str(folder / name)
    missing = [stem for stem in stems if stem not in files]
    among = f"({len(missing)} of {len(stems)} files missing)"
    for stem in missing:
        place = bisect.bisect_left(others, stem)
        similar = [name for name in others[place : place + 1] if name.startswith(stem)]
        instead = f", there is {similar[0]}" if similar else ""
        what = f"{folder / stem}{extensions[0]} does not exist{instead}"
        is_jpeg = bool(similar) and extensions == (".png",) and similar[0].lower().endswith((".jpg", ".jpeg"))
        lossless = "export the masks as PNG, as JPEG changes their numbers"
        faults.append(Fault("files", what, lossless if is_jpeg else remedy, among))
    return files


def _spare_masks(
    mask_folder: Path, masks: Collection[str], image_folder: Path, pictures: Collection[str]
) -> list[Fault]:
    """Masks that have no photo in any split: the run goes on without them."""
    split = [os.path.splitext(name) for name in pictures]
    photos = {stem for stem, extension in split if extension.lower() in PICTURES}
    spare = [name for name in masks if name.lower().endswith(".png") and os.path.splitext(name)[0] not in photos]
    return [Fault("spare mask", f"{mask_folder / name} has no photo in {image_folder}") for name in spare]
