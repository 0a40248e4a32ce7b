"""Opens what a source names so that faults are collected instead of raised."""

from __future__ import annotations

import functools
import json
import re
from pathlib import Path
from typing import Any

import numpy as np

from data_pipelines.class_folders import class_folders, class_name
from data_pipelines.files import PICTURES, entries, picture_names, read_bytes
from larvseg_jax.config import SourceConfig
from larvseg_jax.doctor_checks.folder_set import open_folder
from larvseg_jax.doctor_checks.raw_photos import PhotoSet, RawPhoto
from larvseg_jax.doctor_checks.trouble import Trouble
from larvseg_jax.errors import UserError


def location(source: SourceConfig, data_root: Path) -> Path:
    """The directory that a source names."""
    return data_root / (source.tfds or source.folder or source.class_folders)


def open_photo_set(source: SourceConfig, data_root: Path, *, masks: bool, tags: bool) -> PhotoSet:
    """Opens what a source names; UserError only where there is nothing to look at."""
    directory = location(source, data_root)
    if source.tfds:
        return _open_prepared(directory, source.split, masks)
    if source.folder:
        return open_folder(directory, source.split, masks=masks, tags=tags)
    return _open_class_folders(directory)


def plain_split(split: str) -> str:
    """The split of "train[:10%]"."""
    return re.split(r"[\[+]", split)[0]


def _open_prepared(directory: Path, split: str, masks: bool) -> PhotoSet:
    import tensorflow_datasets as tfds  # takes most of a second

    from data_pipelines.tfds_source import IGNORE

    if not (directory / "dataset_info.json").is_file():
        raise UserError(f"{directory} is no prepared data set")
    try:
        builder = tfds.builder_from_directory(str(directory))
        features = builder.info.features
        with_masks = masks and "mask" in features
        skip = {name: tfds.decode.SkipDecoding() for name in ("image", "mask") if name in features}
        records = builder.as_data_source(split, decoders=skip)
        names = tuple(features["tags"].feature.names)
    except Exception as error:  # of TFDS and of what it reads: a damaged or foreign data set
        raise UserError(f"{directory}, split {split!r}: cannot be opened ({' '.join(str(error).split())})") from error

    def read(index: int) -> RawPhoto:
        try:
            record = records[index]
        except RuntimeError as error:  # checksum of the record, shard cut short or missing
            raise UserError(f"{directory}, split {split!r}, record {index}: cannot be read ({error})") from error
        name = f"{directory}, split {split!r}, photo {record['id'].decode()!r}"
        mask = record["mask"] if with_masks else None
        tags = tuple(int(i) for i in record["tags"])
        return RawPhoto(record["id"].decode(), name, record["image"], name, mask, tags)

    return PhotoSet(
        kind="prepared",
        directory=directory,
        names=names,
        ignore=IGNORE,
        colours=None,
        count=len(records),
        read=read,
        metadata=read_metadata(directory),
        stored_bytes=sum(file.stat().st_size for file in directory.iterdir() if file.is_file()),
    )


def read_metadata(directory: Path) -> dict[str, Any]:
    """metadata.json of a prepared set, {} if there is none or it is no JSON object."""
    try:
        content = json.loads((directory / "metadata.json").read_text("utf-8"))
    except (OSError, ValueError):
        return {}
    return content if isinstance(content, dict) else {}


def _open_class_folders(directory: Path) -> PhotoSet:
    folders = class_folders(directory)
    troubles = []
    counts = []
    for folder in folders:
        try:
            counts.append(len(picture_names(directory / folder)))
        except UserError as error:
            troubles.append(Trouble("files", str(error)))
            counts.append(len(_pictures(directory / folder)))
        if not counts[-1]:
            troubles.append(Trouble("files", f"{directory / folder} holds no pictures"))
    ends = np.cumsum(counts, dtype=np.int64)
    listing = functools.lru_cache(maxsize=64)(lambda number: _pictures(directory / folders[number]))

    def read(index: int) -> RawPhoto:
        number = int(np.searchsorted(ends, index, side="right"))
        file = listing(number)[index - int(ends[number] - counts[number])]
        path = str(directory / folders[number] / file)
        return RawPhoto(f"{folders[number]}/{file}", path, read_bytes(path), tags=(number,))

    names = tuple(class_name(folder) for folder in folders)
    return PhotoSet("class folders", directory, names, None, None, sum(counts), read, troubles=tuple(troubles))


def _pictures(folder: Path) -> list[str]:
    """Sorted names of the pictures in a folder, whatever else lies there."""
    return sorted(e.name for e in entries(folder) if e.name.lower().endswith(PICTURES) and e.is_file())
