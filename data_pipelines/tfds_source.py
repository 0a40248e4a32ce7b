"""A prepared TensorFlow Datasets directory (its features: prepared.py) as a source."""

from __future__ import annotations

from pathlib import Path
from typing import SupportsIndex

from data_pipelines.decode import decode_mask
from data_pipelines.examples import Example, LabelMap, decoded
from data_pipelines.faults import raise_first
from data_pipelines.picture_files import MAX_MEGAPIXELS
from data_pipelines.prepared import IGNORE, open_prepared
from larvseg_jax.vocabulary import LabelSet


class TfdsSource:
    """One split of a prepared TFDS data set (ArrayRecord) as a random-access source of Examples.

    Args:
      directory: directory with dataset_info.json (".../<name>/<version>").
      split: TFDS split, sub-splits such as "train[:10%]" included.
      label_set: the stream's classes, matched by name with those of the `tags` feature.
      masks: give each Example its `label`; needs the feature `mask`.
      tags: give each Example its `tags`.
      max_megapixels: the largest photo or mask that is decoded, millions of pixels.
    """

    def __init__(
        self,
        directory: Path,
        split: str,
        label_set: LabelSet,
        *,
        masks: bool,
        tags: bool,
        max_megapixels: int = MAX_MEGAPIXELS,
    ) -> None:
        self._prepared = open_prepared(directory, split, masks=masks)
        raise_first(self._prepared.faults)
        self._label_map = LabelMap.build(self._prepared.names, IGNORE, label_set, f"{directory}/features.json")
        self._tags, self._max_megapixels = tags, max_megapixels

    def __len__(self) -> int:
        return len(self._prepared)

    def __getitem__(self, index: SupportsIndex) -> Example:
        photo = self._prepared.read(index)
        return decoded(photo, self._label_map, decode_mask, self._max_megapixels, tags=self._tags)
