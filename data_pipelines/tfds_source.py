"""A prepared TensorFlow Datasets directory as a source, without TensorFlow.

Features: `id` Text, `image` Image; optionally `mask` Image ((None, None, 1), uint16 PNG of class ids,
65535 = ignore) and `tags` Sequence(ClassLabel), whose names are the data set's class list.
"""

from __future__ import annotations

from pathlib import Path
from typing import SupportsIndex

import tensorflow_datasets as tfds

from data_pipelines.decode import decode_image, decode_mask
from data_pipelines.examples import Example, LabelMap
from larvseg_jax.errors import UserError
from larvseg_jax.vocabulary import LabelSet

IGNORE = 65535
"""Value of unlabelled pixels in the `mask` feature."""


class TfdsSource:
    """One split of a prepared TFDS data set (ArrayRecord) as a random-access source of Examples.

    Pictures are decoded here and not by TFDS: its decoder loses palettes and does not turn photos.

    Args:
      directory: directory with dataset_info.json (".../<name>/<version>").
      split: TFDS split, sub-splits such as "train[:10%]" included.
      label_set: the stream's classes, matched by name with those of the `tags` feature.
      masks: give each Example its `label`; needs the feature `mask`.
      tags: give each Example its `tags`.
    """

    def __init__(self, directory: Path, split: str, label_set: LabelSet, *, masks: bool, tags: bool) -> None:
        if not (directory / "dataset_info.json").is_file():
            raise UserError(
                f"{directory} is no prepared TFDS data set (no dataset_info.json): prepare it (docs/data.md: python -m "
                "data_pipelines.prepare NAME --from=DIR; the generated scenes: data_pipelines.scenes_builder), and "
                "point --config.data_root= or the environment variable LARVSEG_DATA at the folder that holds it"
            )
        self._where = f"{directory}, split {split!r}"
        self._masks, self._tags = masks, tags
        builder = tfds.builder_from_directory(str(directory))
        features = builder.info.features
        for name in ("id", "image", "tags", *(["mask"] if masks else [])):
            if name not in features:
                raise UserError(
                    f"{directory}: no feature {name!r}, only {', '.join(sorted(features))}: prepare it anew"
                )
        self._label_map = LabelMap.build(
            features["tags"].feature.names, IGNORE, label_set, f"{directory}/features.json"
        )
        skip = {name: tfds.decode.SkipDecoding() for name in ("image", "mask") if name in features}
        try:
            self._records = builder.as_data_source(split, decoders=skip)
        except (ValueError, NotImplementedError) as error:  # unknown split; other file format
            splits, kind = ", ".join(sorted(builder.info.splits)), builder.info.file_format.value
            reason = " ".join(str(error).split())[:200]
            raise UserError(
                f"{self._where}: cannot be opened ({reason}): it has the splits {splits} in format {kind}, "
                "and needs array_record"
            ) from error

    def __len__(self) -> int:
        return len(self._records)

    def __getitem__(self, index: SupportsIndex) -> Example:
        try:
            record = self._records[index.__index__()]
        except RuntimeError as error:  # checksum of the record, shard cut short or missing
            raise UserError(
                f"{self._where}, record {index}: cannot be read ({error}): prepare the data set anew"
            ) from error
        photo = record["id"].decode()
        name = f"{self._where}, photo {photo!r}"
        image = decode_image(record["image"], name)
        example: Example = {"id": photo, "image": image}
        if self._masks:
            example["label"] = self._label_map.label(decode_mask(record["mask"], name), image, name)
        if self._tags:
            example["tags"] = self._label_map.tags(record["tags"], name)
        return example
