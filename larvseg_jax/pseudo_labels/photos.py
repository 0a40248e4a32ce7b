"""The photos that get pseudo labels, and what their masks say of them."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import SupportsIndex

import numpy as np
from jaxtyping import Bool

from data_pipelines.crop_views import tags_in
from data_pipelines.decode import decode_image
from data_pipelines.examples import Example, Source
from data_pipelines.faults import raise_first
from data_pipelines.files import read_bytes
from data_pipelines.sources import open_source
from data_pipelines.tagged_photos import pictures_below
from larvseg_jax.config import Experiment
from larvseg_jax.errors import UserError
from larvseg_jax.evaluation.config import EvalConfig
from larvseg_jax.evaluation.photos import Photo, photos_of
from larvseg_jax.evaluation.windows import Windows
from larvseg_jax.vocabulary import IGNORE_LABEL


@dataclasses.dataclass(frozen=True)
class Pictures:
    """The pictures in and below a folder as a source; their ids are their paths, as seen from it."""

    folder: Path
    paths: tuple[str, ...]
    max_megapixels: int

    def __len__(self) -> int:
        return len(self.paths)

    def __getitem__(self, index: SupportsIndex) -> Example:
        path = self.folder / self.paths[index]
        return {"id": self.paths[index], "image": decode_image(read_bytes(path), str(path), self.max_megapixels)}


@dataclasses.dataclass(frozen=True)
class _Masked:
    """A source whose examples have a label, with a label of IGNORE_LABEL where they have none."""

    source: Source

    def __len__(self) -> int:
        return len(self.source)

    def __getitem__(self, index: SupportsIndex) -> Example:
        example = self.source[index]
        return {"label": np.full(example["image"].shape[:2], IGNORE_LABEL, np.int32), **example}


@dataclasses.dataclass(frozen=True)
class Looked:
    """A photo before it is labelled.

    Attributes:
      photo: with its windows.
      open: whether it has pixels that no mask of other classes covers.
      truth: which of the asked classes its masks show.
    """

    photo: Photo
    open: bool
    truth: Bool[np.ndarray, " c"]


@dataclasses.dataclass(frozen=True)
class Unlabelled:
    """Photos in which classes are asked for.

    Attributes:
      source: the photos.
      columns: of the asked classes in the labels of the source; IGNORE_LABEL of those that masks cannot show.
      where: the source in words.
      masked: whether the source has masks.
    """

    source: Source
    columns: tuple[int, ...]
    where: str
    masked: bool

    def __len__(self) -> int:
        return len(self.source)

    def looked_at(self, numbers: Sequence[int], windows: Windows) -> Iterator[Looked]:
        """The photos with these numbers, decoded and cut a few ahead in threads."""
        config = EvalConfig(scale=windows.scale, window=windows.window, stride=windows.stride)
        for photo in photos_of(_Masked(self.source), numbers, config):
            there = {*tags_in(photo.label).tolist()}
            truth = np.array([column in there for column in self.columns], bool)
            yield Looked(photo, bool(truth.any() or (photo.label == IGNORE_LABEL).any()), truth)


def of_stream(run: Experiment, stream: str, names: Sequence[str]) -> Unlabelled:
    """The photos of a stream of a run; where it has masks, with those of all classes, also of those it hides.

    Raises:
      UserError: there is no such stream, or its data is not there.
    """
    name = stream or next(iter(run.streams))
    if name not in run.streams:
        raise UserError(f"--stream={name}: the run has {', '.join(run.streams)}")
    config = run.streams[name]
    whole = config if config.class_list else dataclasses.replace(config, classes=())
    label_set = run.catalogue.label_set(whole)
    place = dataclasses.replace(config.source, tags_file="")
    source = open_source(place, run.data_root, label_set, config.view.reads, run.max_megapixels)
    masked = config.view.reads == "masks"
    known = {name: column for column, name in enumerate(label_set.names)} if masked else {}
    where = f"stream {name} of {place.location(run.data_root)}, {place.split}"
    return Unlabelled(source, tuple(known.get(name, IGNORE_LABEL) for name in names), where, masked)


def of_folder(folder: Path, names: Sequence[str], max_megapixels: int) -> Unlabelled:
    """The pictures in and below a folder.

    Raises:
      DataError: it cannot be listed, or holds what is no picture.
      UserError: it has none.
    """
    found: dict[str, str] = {}
    raise_first(pictures_below(folder, found, ("tags.json", "tags.csv")))
    if not found:
        raise UserError(f"{folder} has no pictures: give a folder that has some")
    source = Pictures(folder, tuple(sorted(found.values())), max_megapixels)
    return Unlabelled(source, (IGNORE_LABEL,) * len(names), str(folder), masked=False)
