"""The batch of step i as a pure function of (seed, i).

Each stream is a chain of random-access data sets; the step takes one batch of every stream. Nothing
is remembered between steps, so a run resumes at any step, with any number of threads or processes.
"""

from __future__ import annotations

import dataclasses
import hashlib
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import cv2
import grain
import numpy as np
from jaxtyping import Int32

from data_pipelines.examples import Example, Source
from data_pipelines.transforms import train_transform
from larvseg_jax.errors import UserError
from larvseg_jax.vocabulary import IGNORE_LABEL, LabelSet

Batch = dict[str, np.ndarray]
"""image float32 (B, S, S, 3), valid bool (B,), id str (B,), and label int32 (B, S/r, S/r) or tags
int32 (B, max_labels): ascending columns, then IGNORE_LABEL."""


@dataclasses.dataclass(frozen=True)
class Stream:
    """One kind of supervision that every step gets a batch of. Options: configs/common.py.

    Attributes:
      source: where the photos come from; must give `label` (masks, tags_from="crop") or `tags`.
      label_set: the classes it knows; labels and tags are its columns.
      always_tags: columns every photo has as tags besides its own.
      downsample_rate: r, pixels of the crop per pixel of the loss grid.
    """

    source: Source
    label_set: LabelSet
    kind: str
    batch_size: int
    crop_size: int
    scale: tuple[int, int]
    ratio_range: tuple[float, float] = (0.5, 2.0)
    category_ratio: float = 0.75
    max_labels: int = 32
    always_tags: tuple[int, ...] = ()
    tags_from: str = "crop"
    downsample_rate: int = 2

    def __post_init__(self) -> None:
        for option, value, choices in (
            ("kind", self.kind, ("masks", "tags")),
            ("tags_from", self.tags_from, ("crop", "image")),
        ):
            if value not in choices:
                raise UserError(f"stream option {option} is {value!r}: choose one of {', '.join(choices)}")
        if self.crop_size % self.downsample_rate:
            raise UserError(
                f"crop_size {self.crop_size} is no multiple of downsample_rate {self.downsample_rate}: "
                "change one of them"
            )
        if self.batch_size < 1:
            raise UserError(f"batch_size is {self.batch_size}: every stream needs a photo in every step")

    def augment(self, example: Example, rng: np.random.Generator) -> dict[str, Any]:
        """One row of the batch: the augmented Crop, not yet an array, and its supervision."""
        tags_from_image = self.kind == "tags" and self.tags_from == "image"
        crop = train_transform(
            example["image"],
            None if tags_from_image else example["label"],
            rng,
            scale=self.scale,
            ratio_range=self.ratio_range,
            crop_size=self.crop_size,
            category_ratio=self.category_ratio,
            label_stride=self.downsample_rate,
        )
        row = {"id": example["id"], "image": crop, "valid": True}
        if crop.label is None:
            return row | {"tags": self._pad_tags(example["tags"], example["id"])}
        if self.kind == "masks":
            return row | {"label": crop.label}
        return row | {"tags": self._pad_tags(tags_in(crop.label), example["id"])}

    def _pad_tags(self, present: Int32[np.ndarray, " k"], photo: str) -> Int32[np.ndarray, " max_labels"]:
        tags = sorted({*present.tolist(), *self.always_tags})
        if len(tags) > self.max_labels:
            raise UserError(
                f"photo {photo!r} has {len(tags)} tags and max_labels is {self.max_labels}: "
                f"set the stream's max_labels to at least {len(tags)}"
            )
        padded = np.full(self.max_labels, IGNORE_LABEL, np.int32)
        padded[: len(tags)] = tags
        return padded


def tags_in(label: Int32[np.ndarray, "h w"]) -> Int32[np.ndarray, " k"]:
    """Ascending columns present in a label."""
    pixels = np.bincount((label - IGNORE_LABEL).ravel())[1:]
    return np.flatnonzero(pixels).astype(np.int32)


def step_batches(
    streams: Mapping[str, Stream],
    *,
    seed: int,
    total_steps: int,
    process_index: int = 0,
    process_count: int = 1,
) -> grain.MapDataset:
    """Data set of `total_steps` elements; number i is {stream name: Batch} for step i.

    Photos are reshuffled every epoch and augmented anew. Process p of n gets the contiguous block p
    of each batch: the blocks together are the batch that one process would get.

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
        photos = grain.MapDataset.source(stream.source).seed(stream_seed(seed, name)).shuffle().repeat()
        # Random numbers go by the photo's place in the whole stream: draw them before dealing the blocks.
        rows = photos.random_map(stream.augment)
        blocks = rows.batch(stream.batch_size // process_count, drop_remainder=True, batch_fn=stack)
        parts.append(blocks[process_index::process_count][:total_steps])
    names = tuple(streams)
    return grain.experimental.ZipMapDataset(parts).map(lambda batches: dict(zip(names, batches, strict=True)))


def stream_seed(seed: int, name: str) -> int:
    """32-bit seed of a stream, the same on every machine; adding a stream leaves the others alone."""
    return int.from_bytes(hashlib.sha256(f"{seed}/{name}".encode()).digest()[:4], "little")


def stack(rows: Sequence[dict[str, Any]]) -> Batch:
    """Rows of `Stream.augment` as one batch; the pixels of each Crop are written right into it."""
    size = rows[0]["image"].size
    images = np.empty((len(rows), size, size, 3), np.float32)
    for row, pixels in zip(rows, images, strict=True):
        row["image"].write(pixels)
    return {key: np.stack([row[key] for row in rows]) if key != "image" else images for key in rows[0]}


def iterate(dataset: grain.MapDataset, start_step: int, threads: int) -> Iterator[dict[str, Batch]]:
    """Batches from `start_step` on, prepared ahead by `threads` threads (0: in the caller's)."""
    if threads > 1:
        # For the whole process: photos run in parallel already, OpenCV's own threads only get in the way.
        cv2.setNumThreads(1)
    options = grain.ReadOptions(num_threads=threads, prefetch_buffer_size=2 * threads)
    return iter(dataset[start_step:].to_iter_dataset(options))
