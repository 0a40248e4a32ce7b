"""The batch of step i as a pure function of (seed, i).

Each stream is a chain of random-access data sets; the step takes one batch of every stream. Nothing
is remembered between steps, so a run resumes at any step, with any number of threads or processes.
"""

from __future__ import annotations

import dataclasses
import functools
import hashlib
import os
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import cv2
import grain
import numpy as np
from jaxtyping import Int64

from data_pipelines.balance import balanced_order
from data_pipelines.examples import Example, Source
from data_pipelines.mask_tag_views import MaskTagView
from data_pipelines.picture_files import MAX_MEGAPIXELS
from data_pipelines.replacing import row_or_another
from data_pipelines.rows import ArraySpec, stacked
from data_pipelines.sources import SourceConfig, open_source
from data_pipelines.views import View
from larvseg_jax.errors import UserError
from larvseg_jax.options import Count
from larvseg_jax.vocabulary import LabelSet

HostBatch = dict[str, np.ndarray]
"""id str (B,), valid bool (B,), and the arrays of the view's spec with B in front.

Where photos that cannot be used are replaced, also `unusable` (B,): a tuple of the photos whose place each row has.
"""


_NEWER = {"rare_below": 0.0}  # options of a stream that earlier versions did not have, with what they did


@dataclasses.dataclass(frozen=True)
class StreamConfig:
    """One of the section `streams`: where pictures come from, which classes they teach, how they are seen.

    Attributes:
      view: how a photo becomes a row; its fields are options of the stream, too, and `kind` is its name in VIEWS.
      loss: what the method makes of the stream; its fields are options of the stream, too.
    """

    view: View
    loss: Any
    source: SourceConfig = SourceConfig()
    classes: tuple[str, ...] = ()  # names of the classes it knows, = its logit columns; () = the whole vocabulary
    class_list: str = ""  # instead of classes: one of class_lists.lists
    batch_size: Count = 8  # pictures of this stream in every step, over all devices
    # Classes that a smaller share of the photos shows than this: these photos come several times an epoch (balance.py).
    rare_below: float = 0.0  # 0: every photo once

    def __post_init__(self) -> None:
        if self.class_list and self.classes:
            raise UserError("a stream has classes and a class_list: keep one of the two")
        own = isinstance(self.view, MaskTagView) and self.view.tags_from == "photo"
        if own != bool(self.source.tags_file):
            raise UserError(
                f"source.tags_file is {self.source.tags_file!r}: a stream has it where kind='masks_and_tags' and "
                "tags_from='photo', give all of these or none"
            )
        if not 0 <= self.rare_below <= 1:
            raise UserError(f"rare_below is {self.rare_below}: give a share of the photos, 0 to 1")
        if self.rare_below and self.view.reads == "captions":
            raise UserError("rare_below goes by the classes of photos, and captions have none: leave it at 0")

    @property
    def spec(self) -> dict[str, ArraySpec]:
        """The arrays of a batch on the devices, without their first axis: `valid` is False for filler."""
        return {"valid": ArraySpec((), "bool", 0), **self.view.spec()}


@dataclasses.dataclass(frozen=True)
class Stream:
    """A stream whose source is open.

    Attributes:
      source: where the photos come from; gives what the view reads: `label`, `tags` or `captions`.
      label_set: the classes it knows; labels and tags are its columns.
      view: how a photo becomes a row.
      batch_size: photos of a step, over all processes.
      order: numbers of the photos of an epoch before they are shuffled; None: each once.
    """

    source: Source
    label_set: LabelSet
    view: View
    batch_size: int
    order: Int64[np.ndarray, " places"] | None = None

    def augment(self, example: Example, rng: np.random.Generator) -> dict[str, Any]:
        """One row of the batch: pictures yet to be written, and their supervision."""
        return {"id": example["id"], "valid": True, **self.view.row(example, rng, self.label_set)}

    def row(self, number: int, rng: np.random.Generator) -> dict[str, Any]:
        """The row of photo `number` of the source; DataError if it cannot be used."""
        return self.augment(self.source[number], rng)


def open_stream(
    config: StreamConfig,
    data_root: str | os.PathLike[str],
    label_set: LabelSet,
    max_megapixels: int = MAX_MEGAPIXELS,
) -> Stream:
    """Opens and checks the source of a stream; UserError if it or the view does not go with its classes."""
    config.view.check(label_set)
    source = open_source(config.source, data_root, label_set, config.view.reads, max_megapixels)
    order = balanced_order(source, label_set, config.rare_below, "balance") if config.rare_below else None
    return Stream(source, label_set, config.view, config.batch_size, order)


def recorded(options: Mapping[str, Any]) -> dict[str, Any]:
    """The options of a stream or an evaluation as records have them: without those that are newer and not in use.

    So a run of earlier code, or its features, is not taken for one of other data.
    """
    kept = {name: value for name, value in options.items() if name not in _NEWER or value != _NEWER[name]}
    if isinstance(kept.get("source"), Mapping):
        newer = ("tagged", "shards", "tags_file")
        kept["source"] = {kind: value for kind, value in kept["source"].items() if kind not in newer or value}
    return kept


def step_batches(
    streams: Mapping[str, Stream],
    *,
    seed: int,
    total_steps: int,
    process_index: int = 0,
    process_count: int = 1,
    replace: bool = False,
) -> grain.MapDataset:
    """Data set of `total_steps` elements; number i is {stream name: HostBatch} for step i.

    Photos are reshuffled every epoch and augmented anew. Process p of n gets the contiguous block p
    of each batch: the blocks together are the batch that one process would get. With `replace`, photos that
    cannot be used are replaced by others, and batches have `unusable`; all else is as without.

    Raises:
      UserError: a batch that the processes do not divide.
    """
    parts = []
    for name, stream in streams.items():
        if stream.batch_size % process_count:
            raise UserError(
                f"stream {name!r}: batch_size {stream.batch_size} is no multiple of the {process_count} "
                f"processes: use {-(-stream.batch_size // process_count) * process_count}"
            )
        count = len(stream.source)
        places = count if stream.order is None else len(stream.order)
        photos = grain.MapDataset.range(places).seed(stream_seed(seed, name)).shuffle().repeat()
        if stream.order is not None:
            photos = photos.map(stream.order.tolist().__getitem__)
        # Random numbers go by the photo's place in the whole stream: draw them before dealing the blocks.
        rows = photos.random_map(functools.partial(row_or_another, stream.row, count) if replace else stream.row)
        blocks = rows.batch(stream.batch_size // process_count, drop_remainder=True, batch_fn=stack)
        parts.append(blocks[process_index::process_count][:total_steps])
    names = tuple(streams)
    return grain.experimental.ZipMapDataset(parts).map(lambda batches: dict(zip(names, batches, strict=True)))


def stream_seed(seed: int, name: str) -> int:
    """32-bit seed of a stream, the same on every machine; adding a stream leaves the others alone."""
    return int.from_bytes(hashlib.sha256(f"{seed}/{name}".encode()).digest()[:4], "little")


def stack(rows: Sequence[dict[str, Any]]) -> HostBatch:
    """Rows of `Stream.augment` as one batch; the pixels of each picture are written right into it."""
    return {key: stacked([row[key] for row in rows]) for key in rows[0]}


def iterate(dataset: grain.MapDataset, start_step: int, threads: int) -> Iterator[dict[str, HostBatch]]:
    """Batches from `start_step` on, prepared ahead by `threads` threads (0: in the caller's)."""
    if threads > 1:
        # For the whole process: photos run in parallel already, OpenCV's own threads only get in the way.
        cv2.setNumThreads(1)
    options = grain.ReadOptions(num_threads=threads, prefetch_buffer_size=2 * threads)
    return iter(dataset[start_step:].to_iter_dataset(options))
