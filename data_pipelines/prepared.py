"""A prepared TensorFlow Datasets directory, opened without TensorFlow: its photos, class names and metadata.

Features: `id` Text, `image` Image; `tags` Sequence(ClassLabel), whose names are the data set's class list, and perhaps
`mask` Image ((None, None, 1), uint16 PNG of class ids, 65535 = ignore); or `captions` Sequence(Text).
"""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path
from typing import Any, SupportsIndex

from data_pipelines.examples import RawPhoto
from data_pipelines.faults import Fault
from larvseg_jax.errors import DataError

IGNORE = 65535
"""Value of unlabelled pixels in the `mask` feature."""


@dataclasses.dataclass(frozen=True)
class PreparedSet:
    """One split of a prepared data set.

    Attributes:
      directory: where it lies; split: as in the config.
      names: class names by class id; () without tags.
      records: of TFDS; pictures are not decoded, as its decoder loses palettes and does not turn photos.
      masks: whether masks are read.
      captions: whether captions are read.
      faults: what the set lacks for what is asked of it.
    """

    directory: Path
    split: str
    names: tuple[str, ...]
    records: Any
    masks: bool
    captions: bool
    faults: tuple[Fault, ...]

    def __len__(self) -> int:
        return len(self.records)

    def read(self, index: SupportsIndex) -> RawPhoto:
        """Reads one photo; DataError if its record is damaged. Safe to call from several threads."""
        where = f"{self.directory}, split {self.split!r}"
        try:
            record = self.records[index.__index__()]
        except (RuntimeError, ValueError) as error:  # checksum of the record, shard cut short or missing
            # ArrayRecord gives nothing for what lies beyond the end of a shard, which TFDS cannot parse.
            reason = _line(error) if isinstance(error, RuntimeError) else "its shard is cut short, or no longer whole"
            what = f"{where}, record {index}: cannot be read ({reason})"
            raise DataError("unreadable", what, "prepare the data set anew") from error
        photo = record["id"].decode()
        name = f"{where}, photo {photo!r}"
        mask = record["mask"] if self.masks else None
        if self.captions:
            return RawPhoto(photo, name, record["image"], captions=tuple(text.decode() for text in record["captions"]))
        return RawPhoto(photo, name, record["image"], name, mask, tuple(int(i) for i in record["tags"]))


def is_prepared(directory: Path) -> bool:
    """Whether a prepared data set lies in the directory."""
    return (directory / "dataset_info.json").is_file()


def open_prepared(directory: Path, split: str, *, masks: bool = False, captions: bool = False) -> PreparedSet:
    """Opens one split of a prepared data set (ArrayRecord).

    Args:
      directory: directory with dataset_info.json (".../<name>/<version>").
      split: TFDS split, sub-splits such as "train[:10%]" included.
      masks: read the masks; a fault if it has none.
      captions: read the captions, and no tags; likewise.

    Raises:
      DataError: there is no data set, no such split, or no photos that can be read.
    """
    if not is_prepared(directory):
        remedy = (
            "prepare it (docs/data.md: python -m data_pipelines.prepare NAME --from=DIR; the generated scenes: "
            "data_pipelines.scenes), and point --config.data_root= or the environment variable LARVSEG_DATA "
            "at the folder that holds it"
        )
        raise DataError("files", f"{directory} is no prepared TFDS data set (no dataset_info.json)", remedy)
    import tensorflow_datasets as tfds  # takes most of a second

    try:
        builder = tfds.builder_from_directory(str(directory))
        features = builder.info.features
        names = tuple(features["tags"].feature.names) if "tags" in features else ()
    except Exception as error:  # whatever TFDS trips over: a damaged or foreign data set
        raise DataError("files", f"{directory}: cannot be opened ({_line(error)})", "prepare it anew") from error
    wanted = ["id", "image", "captions"] if captions else ["id", "image", "tags", *(["mask"] if masks else [])]
    missing = [name for name in wanted if name not in features]
    there = ", ".join(sorted(features))
    faults = [
        Fault("features", f"{directory}: no feature {name!r}, only {there}", "prepare it anew") for name in missing
    ]
    if missing not in ([], ["mask"]):
        raise faults[0].error()
    skip = {name: tfds.decode.SkipDecoding() for name in ("image", "mask") if name in features}
    try:
        records = builder.as_data_source(split, decoders=skip)
    except Exception as error:  # unknown split, other file format, missing files
        splits, kind = ", ".join(sorted(builder.info.splits)), builder.info.file_format.value
        what = f"{directory}, split {split!r}: cannot be opened ({_line(error)})"
        remedy = f"it has the splits {splits} in format {kind}, and needs array_record"
        raise DataError("files", what, remedy) from error
    return PreparedSet(directory, split, names, records, masks and not missing, captions, tuple(faults))


_METADATA = {"expected": dict, "unreadable": dict, "photos_per_class": dict, "missing_synsets": list}
"""Entries of metadata.json that are looked into."""


def read_metadata(directory: Path) -> dict[str, Any]:
    """metadata.json of a prepared set (see data_pipelines.builders), without entries of another kind than is written.

    {} if there is none or it is no JSON object: whoever made the set, it can be trained on.
    """
    try:
        content = json.loads((directory / "metadata.json").read_text("utf-8"))
    except (OSError, ValueError, RecursionError):
        return {}
    found = content if isinstance(content, dict) else {}
    return {name: value for name, value in found.items() if isinstance(value, _METADATA.get(name, object))}


def _line(error: Exception) -> str:
    """An error of TFDS in one line of bearable length."""
    return " ".join(str(error).split())[:200]
