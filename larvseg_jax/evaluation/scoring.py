"""Evaluation on a set of photos with masks: sliding windows, stitched logits, IoU per class."""

from __future__ import annotations

import collections
import dataclasses
from collections.abc import Callable, Collection, Iterator, Sequence
from concurrent import futures
from typing import Any

import jax
import numpy as np
from jaxtyping import Float32, Int32

from data_pipelines.examples import Source
from larvseg_jax.console import track
from larvseg_jax.errors import UserError
from larvseg_jax.evaluation import sliding_window
from larvseg_jax.evaluation.config import EvalConfig
from larvseg_jax.evaluation.metrics import SegmentationCounts, Summary
from larvseg_jax.vocabulary import LabelSet, Vocabulary
from larvseg_jax.vocabulary.base_novel import BaseNovel

_PREFETCHED = 4  # photos decoded ahead of the device

PatchLogits = Callable[[np.ndarray], "jax.Array | np.ndarray"]
"""(W, S, S, 3) normalised windows -> (W, h, w, N) float32 logits, one column per class; jitted, W fixed."""


@dataclasses.dataclass(frozen=True)
class _Photo:
    """A photo on its way through the network."""

    index: int
    id: str
    label: Int32[np.ndarray, "H W"]
    test_size: tuple[int, int]
    windows: Float32[np.ndarray, "n s s 3"]


def evaluate(
    patch_logits: PatchLogits,
    source: Source,
    label_set: LabelSet,
    vocabulary: Vocabulary,
    config: EvalConfig,
    *,
    batch: int,
    definitions: Sequence[BaseNovel] = (),
    keep: Collection[int] = (),
) -> tuple[Summary, dict[int, Int32[np.ndarray, "H W"]]]:
    """Scores a model on photos at their own resolution.

    Args:
      patch_logits: see `PatchLogits`; columns beyond the label set (padding) are cut off. Called with
        exactly `batch` windows: those of several photos share a call, the last one is filled up
        with zeros.
      source: photos with masks.
      label_set: the classes that compete.
      vocabulary: says which of them are base, novel, background, ignored.
      config: sizes and the way back to the photo's size.
      batch: W, windows per call of the network.
      definitions: other definitions of base and novel to report.
      keep: numbers of the photos whose label maps are wanted.

    Returns:
      The scores, and the predicted label map of each photo in `keep`.

    Raises:
      UserError: logits that are not finite, with the photo's id.
    """
    total = min(config.limit or len(source), len(source))
    counts = SegmentationCounts.zeros(len(label_set))
    kept: dict[int, np.ndarray] = {}
    photos = _photo_logits(patch_logits, _photos(source, total, config), batch)
    for photo, logits in track(photos, total, "evaluation"):
        logits = logits[..., : len(label_set)]
        if not np.isfinite(logits).all():
            raise UserError(f"logits of photo {photo.id!r} are not finite: the weights have diverged")
        prediction = label_map(logits, photo.test_size, photo.label.shape, config)
        counts = counts.add(prediction, photo.label)
        if photo.index in keep:
            kept[photo.index] = prediction
    return counts.summary(label_set.names, vocabulary, definitions), kept


def label_map(
    logits: Float32[np.ndarray, "n h w k"], test_size: tuple[int, int], size: tuple[int, int], config: EvalConfig
) -> Int32[np.ndarray, "H W"]:
    """Patch logits of a photo's windows -> labels at the photo's own `size` (H, W)."""
    stitched_size = size if config.resize == "logits" else test_size
    stitching = config.windows.stitching(logits.shape[1:3], test_size, stitched_size)
    patches = sliding_window.mosaic(logits, stitching.window_rows)
    labels = sliding_window.predict_label_map(patches, stitching.rows, stitching.columns)
    return sliding_window.resize_label_map(labels, *size) if config.resize == "labels" else labels


def _photos(source: Source, total: int, config: EvalConfig) -> Iterator[_Photo]:
    """The photos in order, decoded and cut a few ahead in threads."""

    def load(index: int) -> _Photo:
        example = source[index]
        image = example["image"]
        test_size = config.windows.test_size(image.shape)
        return _Photo(index, example["id"], example["label"], test_size, config.windows.cut(image))

    with futures.ThreadPoolExecutor(_PREFETCHED) as pool:
        loading = collections.deque(pool.submit(load, i) for i in range(min(_PREFETCHED, total)))
        for following in range(_PREFETCHED, total + _PREFETCHED):
            photo = loading.popleft().result()
            if following < total:
                loading.append(pool.submit(load, following))
            yield photo


def _photo_logits(
    patch_logits: PatchLogits, photos: Iterator[_Photo], batch: int
) -> Iterator[tuple[_Photo, Float32[np.ndarray, "n h w k"]]]:
    """Sends windows in full batches and gives each photo its windows' logits, in order.

    One batch stays in flight, so that the device computes while the host stitches.
    """
    pending: collections.deque[_Photo] = collections.deque()
    windows: list[np.ndarray] = []  # not sent yet
    in_flight: collections.deque[Any] = collections.deque()  # sent, not fetched
    arrived: collections.deque[np.ndarray] = collections.deque()  # fetched, kept for the rest of the photo

    def finished(at_most: int) -> Iterator[tuple[_Photo, np.ndarray]]:
        while len(in_flight) > at_most:
            arrived.extend(np.asarray(in_flight.popleft()))
        while pending and len(pending[0].windows) <= len(arrived):
            photo = pending.popleft()
            yield photo, np.stack([arrived.popleft() for _ in photo.windows])

    for photo in photos:
        pending.append(photo)
        windows.extend(photo.windows)
        while len(windows) >= batch:
            in_flight.append(patch_logits(np.stack(windows[:batch])))
            del windows[:batch]
            yield from finished(at_most=1)
    if windows:
        filler = [np.zeros_like(windows[0])] * (batch - len(windows))
        in_flight.append(patch_logits(np.stack(windows + filler)))
    yield from finished(at_most=0)
