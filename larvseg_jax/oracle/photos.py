"""The photos of an oracle test, their classes, and which of these are base and novel."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import numpy as np
from jaxtyping import Bool

from data_pipelines.examples import Source
from data_pipelines.prepared import is_prepared
from data_pipelines.sources import SourceConfig, open_source
from larvseg_jax.config import Experiment
from larvseg_jax.errors import UserError
from larvseg_jax.evaluation.metrics import Summary
from larvseg_jax.vocabulary import Vocabulary
from larvseg_jax.vocabulary.base_novel import BaseNovel
from larvseg_jax.vocabulary.class_lists import class_list

DEFINITIONS = ("processed", "split")
"""Base and novel classes of ADE20K: as in the released training, and as in the paper's printed columns."""


@dataclasses.dataclass(frozen=True)
class Photos:
    """A data set that is no evaluation of a config.

    Attributes:
      data: prepared data set or data folder with masks, relative to the data root.
      class_list: its class list.
      split: which of its photos.
    """

    data: str
    class_list: str
    split: str = "val"


@dataclasses.dataclass(frozen=True)
class Group:
    """A definition of base and novel classes.

    Attributes:
      label: "" for the vocabulary's own, else that of the definition, "58/92".
      novel: which columns are novel.
    """

    label: str
    novel: Bool[np.ndarray, " n"]

    def name(self, group: str) -> str:
        """How scores call "base" or "novel" of this definition: "novel 58/92"."""
        return f"{group} {self.label}".rstrip()

    def base_novel(self, summary: Summary) -> tuple[float, float]:
        """The mean IoU of its base and of its novel classes."""
        return summary.base_novel_iou[self.label] if self.label else (summary.base_iou, summary.novel_iou)


@dataclasses.dataclass(frozen=True)
class Labelled:
    """Photos with masks.

    Attributes:
      source: the photos; columns are those of `names`.
      names: the classes.
      vocabulary: what it says of these: base, novel, background, ignored.
      definitions: other definitions of base and novel.
      called: how messages call the data.
      total: how many photos are looked at, the first of the source.
    """

    source: Source
    names: tuple[str, ...]
    vocabulary: Vocabulary
    definitions: tuple[BaseNovel, ...]
    called: str
    total: int

    @property
    def groups(self) -> tuple[Group, ...]:
        """The definitions of base and novel classes, the vocabulary's own first; none if there is none."""
        own = np.array([name in self.vocabulary.novel for name in self.names], bool)
        groups = [Group("", own)] if own.any() else []
        counted = np.array([g not in ("background", "ignored") for g in self.vocabulary.groups(self.names)], bool)
        for of in self.definitions:
            groups.append(Group(of.label, counted & np.array([name not in of.base for name in self.names], bool)))
        return tuple(groups)


def of_data(photos: Photos, root: Path, limit: int) -> Labelled:
    """A prepared data set or data folder under `root`: all its classes compete; ADE20K's are base and novel."""
    classes, folder = class_list(photos.class_list), root / photos.data
    if not folder.is_dir():
        raise UserError(f"--data={photos.data}: {folder} does not exist: point --data_root at the folder that holds it")
    prepared = is_prepared(folder)
    location = SourceConfig(
        tfds=photos.data if prepared else "", folder="" if prepared else photos.data, split=photos.split
    )
    ade = photos.class_list.startswith("ade20k")
    definitions = tuple(map(classes.base_novel, DEFINITIONS)) if ade else ()
    vocabulary = Vocabulary(classes.ids)
    source = open_source(location, root, vocabulary.label_set(), "masks")
    return Labelled(source, classes.ids, vocabulary, definitions, classes.key, _total(source, limit))


def of_evaluation(run: Experiment, limit: int) -> Labelled:
    """The photos and classes of a run's first evaluation by name, without the rivals it may have."""
    if not run.evals:
        raise UserError("the config has no evaluation: give --data and --class_list")
    name = min(run.evals)
    evaluation = dataclasses.replace(run.evals[name], rivals="")
    label_set = run.catalogue.label_set(evaluation, evaluation=True)
    source = open_source(evaluation.source, run.data_root, label_set, "masks", run.max_megapixels)
    definitions = run.catalogue.definitions(evaluation.class_list, evaluation.base_novel)
    total = _total(source, limit or evaluation.limit)
    return Labelled(source, label_set.names, run.vocabulary, definitions, f"evals.{name}", total)


def _total(source: Source, limit: int) -> int:
    return min(limit or len(source), len(source))
