"""Cached features: what the first blocks of a backbone make of photos, in files.

The folder of a stream, or of an evaluation, holds shards of ArrayRecord and features.json, which says what they are.
Record photo * views + view of a stream is one view of one photo: its tokens and its supervision, in the format of
safetensors. Record photo of an evaluation has the tokens of all windows of a photo.
"""

from __future__ import annotations

import contextlib
import dataclasses
import json
import os
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any, SupportsIndex

import numpy as np
import safetensors.numpy
from array_record.python.array_record_data_source import ArrayRecordDataSource
from array_record.python.array_record_module import ArrayRecordWriter

from data_pipelines.rows import ArraySpec
from larvseg_jax.disk import write_text
from larvseg_jax.errors import DataError, UserError

DESCRIPTION = "features.json"
TOKENS = ("leading", "patches")
"""Arrays of a record in place of the picture: tokens without a place (l, d), those of the patches (h, w, d)."""


def token_names(picture: str) -> tuple[str, str]:
    """The arrays of a record in place of a picture: TOKENS for `image`, with its name in front for another of a row."""
    leading, patches = TOKENS
    return TOKENS if picture == "image" else (f"{picture}_{leading}", f"{picture}_{patches}")


_AGAIN = "the same command of larvseg features goes on with the shards that are missing"
_SHARD_BYTES = 2**28
_MOST_SHARDS = 100_000  # 25 TB: a description that asks for more is damaged


@dataclasses.dataclass(frozen=True)
class FeatureFacts:
    """What the features of a stream or of an evaluation are.

    Attributes:
      weights: path -> digest of every parameter that had a part in them.
      model: options of the backbone that they depend on.
      stream: options of the stream that they depend on: its source and its view; of an evaluation, its source and
        its windows.
      classes: names of the columns of labels and tags; an evaluation has none.
      blocks: how many blocks they have been through.
      photos: how many there are.
      views: of each photo.
      seed: of the views.
      arrays: name -> [shape, dtype] of the arrays of a record; of an evaluation, of one window.
      records_per_shard: in every shard but the last.
      made: by which weights and code; whatever it says, the features are the same.
    """

    weights: Mapping[str, int]
    model: Mapping[str, Any]
    stream: Mapping[str, Any]
    classes: tuple[str, ...]
    blocks: int
    photos: int
    views: int
    seed: int
    arrays: Mapping[str, tuple[tuple[int, ...], str]]
    records_per_shard: int
    made: Mapping[str, Any] = dataclasses.field(compare=False)

    @property
    def records(self) -> int:
        """How many there are."""
        return self.photos * self.views

    @property
    def dtype(self) -> str:
        """Of the tokens."""
        return self.arrays["patches"][1]

    @property
    def record_bytes(self) -> int:
        """Of the arrays of a record."""
        return _size(self.arrays)

    @property
    def specs(self) -> dict[str, ArraySpec]:
        """The arrays of a record; what fills rows that are no example is left to the view."""
        return {name: ArraySpec(tuple(shape), dtype, 0) for name, (shape, dtype) in self.arrays.items()}

    def shards(self, folder: Path) -> list[tuple[Path, range]]:
        """The files, and the records that are in each."""
        starts = range(0, self.records, self.records_per_shard)
        return [
            (
                folder / f"features.array_record-{number:05d}-of-{len(starts):05d}",
                range(start, min(start + self.records_per_shard, self.records)),
            )
            for number, start in enumerate(starts)
        ]

    def write(self, folder: Path) -> None:
        """Into the folder of the features; UserError if the disk does not take it."""
        write_text(folder / DESCRIPTION, json.dumps(dataclasses.asdict(self), indent=1) + "\n")


def records_of_a_shard(arrays: Mapping[str, tuple[tuple[int, ...], str]]) -> int:
    """As many as make a shard of a quarter of a GiB."""
    return max(1, _SHARD_BYTES // _size(arrays))


def _size(arrays: Mapping[str, tuple[tuple[int, ...], str]]) -> int:
    return sum(int(np.prod(shape)) * np.dtype(dtype).itemsize for shape, dtype in arrays.values())


def read_facts(folder: Path) -> FeatureFacts:
    """What the features in a folder are; UserError if there are none."""
    file = folder / DESCRIPTION
    try:
        found = json.loads(file.read_text("utf-8"))
        arrays = {name: (tuple(shape), dtype) for name, (shape, dtype) in found.pop("arrays").items()}
        facts = FeatureFacts(**found | {"classes": tuple(found["classes"])}, arrays=arrays)
        if facts.records > _MOST_SHARDS * facts.records_per_shard:
            raise ValueError("more shards than can be")
        _ = facts.shards(folder), facts.specs
        return facts
    except OSError as error:
        raise UserError(
            f"{file} cannot be read ({error.strerror}): make the features (python -m larvseg_jax.features), or train "
            "without them by --config.features="
        ) from None
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError, ArithmeticError) as error:
        reason = type(error).__name__
        raise UserError(f"{file} does not describe features ({reason}): delete {folder}, make them anew") from error


def write_shard(path: Path, records: Iterable[Mapping[str, np.ndarray]]) -> None:
    """Writes a shard, whole or not at all. UserError if the disk does not take it."""
    partial = path.with_name(f"{path.name}.incomplete")
    try:
        with contextlib.suppress(FileNotFoundError):
            partial.unlink()
        writer = ArrayRecordWriter(str(partial), "group_size:1")
        try:
            for record in records:
                writer.write(safetensors.numpy.save({name: np.asarray(x, order="C") for name, x in record.items()}))
        finally:
            writer.close()
        os.replace(partial, path)
    except (OSError, RuntimeError) as error:  # the latter of ArrayRecord
        reason = getattr(error, "strerror", None) or " ".join(str(error).split())[:200]
        raise UserError(f"{path} cannot be written ({reason}): make room; {_AGAIN}") from error


class FeatureRecords:
    """The views of a stream's photos, to be read in any order and by several threads."""

    def __init__(self, folder: Path, facts: FeatureFacts) -> None:
        """UserError if shards are missing or are not what `facts` says."""
        self.facts, self._folder = facts, folder
        shards = facts.shards(folder)
        missing = [path for path, _ in shards if not path.is_file()]
        if missing:
            raise UserError(f"{missing[0]} is missing ({len(missing)} of {len(shards)} shards are): {_AGAIN}")
        try:
            self._records = ArrayRecordDataSource([str(path) for path, _ in shards])
        except (RuntimeError, ValueError) as error:
            raise UserError(f"{folder} has a shard that cannot be read ({error}): delete it; {_AGAIN}") from error
        if len(self._records) != facts.records:
            raise UserError(
                f"{folder} has {len(self._records):,} records, and {DESCRIPTION} says {facts.records:,}: "
                "delete it and make the features anew"
            )

    def __len__(self) -> int:
        """How many photos there are."""
        return self.facts.photos

    def __getitem__(self, index: SupportsIndex) -> Any:
        """The first view of a photo, with its id; DataError if it cannot be read."""
        name, arrays = self.read(index.__index__(), 0)
        return {"id": name, **arrays}

    def read(self, photo: int, view: int) -> tuple[str, dict[str, np.ndarray]]:
        """The id of a photo, and the arrays of one of its views; DataError if they cannot be read."""
        return self._record(photo * self.facts.views + view, windows=False)

    def windows(self, photo: int) -> tuple[str, list[dict[str, np.ndarray]]]:
        """Of an evaluation: the id of a photo, and the arrays of each of its windows; DataError as `read`."""
        name, arrays = self._record(photo, windows=True)
        return name, [{k: x[i] for k, x in arrays.items()} for i in range(len(arrays[TOKENS[0]]))]

    def _record(self, number: int, windows: bool) -> tuple[str, dict[str, np.ndarray]]:
        try:
            arrays = safetensors.numpy.load(self._records[number])
            name = arrays.pop("id").tobytes().decode("utf-8", "surrogateescape")
            found = {k: arrays[k].astype(spec.dtype, copy=False) for k, spec in self.facts.specs.items()}
            # Photos have one window or several.
            lengths = {x.shape[:1] for x in found.values()} if windows else {()}
            if any(found[k].shape != (*of, *spec.shape) for k, spec in self.facts.specs.items() for of in lengths):
                raise ValueError("an array has another shape")
        except (RuntimeError, ValueError, KeyError, IndexError, safetensors.SafetensorError) as error:
            what = f"{self._folder}, record {number}: cannot be read ({' '.join(str(error).split())[:200]})"
            raise DataError("unreadable", what, f"delete the features and make them anew ({_AGAIN})") from error
        return name, found


def id_array(name: str) -> np.ndarray:
    """The id of a photo as an array of bytes, which is what a record can hold."""
    return np.frombuffer(name.encode("utf-8", "surrogateescape"), np.uint8)
