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

from data_pipelines import transforms
from data_pipelines.examples import Source
from larvseg_jax import progress, sliding_window
from larvseg_jax.errors import UserError
from larvseg_jax.metrics import SegmentationCounts, Split, Summary
from larvseg_jax.vocabulary import LabelSet, Vocabulary

_PREFETCHED = 4  # photos decoded ahead of the device

PatchLogits = Callable[[np.ndarray], "jax.Array | np.ndarray"]
"""(W, S, S, 3) normalised windows -> (W, h, w, N) float32 logits, one column per class; jitted, W fixed."""


@dataclasses.dataclass(frozen=True)
class EvalSettings:
    """How photos become windows and windows become label maps.

    Attributes:
      batch: W, windows per call of the network.
      scale: (long side, short side) limits at test resolution, pixels; aspect ratio kept.
      window, stride: of the sliding window, pixels at test resolution.
      resize: what is resized to the photo's own size, "logits" or "labels". `Original:` "labels", which
        the published numbers come from; "logits" is finer.
      class_block: classes upsampled at a time.
      limit: only the first so many photos; 0 = all.
    """

    batch: int
    scale: tuple[int, int] = (2048, 512)
    window: int = 512
    stride: int = 512
    resize: str = "logits"
    class_block: int = 256
    limit: int = 0

    def __post_init__(self) -> None:
        if self.resize not in ("logits", "labels"):
            raise UserError(f"eval.resize is {self.resize!r}: choose 'logits' or 'labels'")
        if not 0 < self.stride <= self.window:
            raise UserError(f"eval.stride is {self.stride}: choose 1 to eval.window = {self.window}")


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
    settings: EvalSettings,
    *,
    splits: Sequence[Split] = (),
    keep: Collection[int] = (),
) -> tuple[Summary, dict[int, Int32[np.ndarray, "H W"]]]:
    """Scores a model on photos at their own resolution.

    Args:
      patch_logits: see `PatchLogits`; columns beyond the label set (padding) are cut off. Called with
        exactly `settings.batch` windows: those of several photos share a call, the last one is filled up
        with zeros.
      source: photos with masks.
      label_set: the classes that compete.
      vocabulary: says which of them are base, novel, background, ignored.
      settings: sizes and the way back to the photo's size.
      splits: other definitions of base and novel to report.
      keep: numbers of the photos whose label maps are wanted.

    Returns:
      The scores, and the predicted label map of each photo in `keep`.

    Raises:
      UserError: logits that are not finite, with the photo's id.
    """
    total = min(settings.limit or len(source), len(source))
    counts = SegmentationCounts.zeros(len(label_set))
    kept: dict[int, np.ndarray] = {}
    photos = _photo_logits(patch_logits, _photos(source, total, settings), settings.batch)
    for photo, logits in progress.track(photos, total, "evaluation"):
        logits = logits[..., : len(label_set)]
        if not np.isfinite(logits).all():
            raise UserError(f"logits of photo {photo.id!r} are not finite: the weights have diverged")
        prediction = label_map(logits, photo.test_size, photo.label.shape, settings)
        counts = counts.add(prediction, photo.label)
        if photo.index in keep:
            kept[photo.index] = prediction
    return counts.summary(label_set.names, vocabulary, splits), kept


def photo_windows(image: np.ndarray, settings: EvalSettings) -> tuple[Float32[np.ndarray, "n s s 3"], tuple[int, int]]:
    """uint8 RGB photo -> its windows, resized and normalised, and its size (h, w) at test resolution.

    A side shorter than the window is padded with zeros at the bottom or right after normalisation, so that
    there is one static shape. `Original:` runs such a window as it is (aspect ratios over 4 only).
    """
    normalised = transforms.eval_transform(image, settings.scale)
    windows = sliding_window.cut_windows(normalised, settings.window, settings.stride)
    missing = [(0, settings.window - side) for side in windows.shape[1:3]]
    return np.pad(windows, [(0, 0), *missing, (0, 0)]), normalised.shape[:2]


def label_map(
    logits: Float32[np.ndarray, "n h w k"],
    test_size: tuple[int, int],
    size: tuple[int, int],
    settings: EvalSettings,
) -> Int32[np.ndarray, "H W"]:
    """Patch logits of a photo's windows (of `photo_windows`) -> labels at the photo's own `size` (H, W)."""
    stitched_size = size if settings.resize == "logits" else test_size
    window_rows, rows, columns = stitching(logits.shape[1:3], test_size, stitched_size, settings)
    patches = sliding_window.mosaic(logits, window_rows)
    labels = sliding_window.predict_label_map(patches, rows, columns, settings.class_block)
    return sliding_window.resize_label_map(labels, *size) if settings.resize == "labels" else labels


def stitching(
    grid: tuple[int, ...], test_size: tuple[int, int], size: tuple[int, int], settings: EvalSettings
) -> tuple[int, np.ndarray, np.ndarray]:
    """How windows with a patch grid become a map of `size`: rows of windows, and one matrix per axis."""
    row_matrix, column_matrix = (
        sliding_window.stitch_matrix(length, settings.window, settings.stride, patches, out, padded=True)
        for length, patches, out in zip(test_size, grid, size, strict=True)
    )
    window_rows = len(sliding_window.window_starts(test_size[0], settings.window, settings.stride))
    return window_rows, row_matrix, column_matrix


def _photos(source: Source, total: int, settings: EvalSettings) -> Iterator[_Photo]:
    """The photos in order, decoded and cut a few ahead in threads."""

    def load(index: int) -> _Photo:
        example = source[index]
        windows, test_size = photo_windows(example["image"], settings)
        return _Photo(index, example["id"], example["label"], test_size, windows)

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
    waiting: collections.deque[_Photo] = collections.deque()
    windows: list[np.ndarray] = []  # not sent yet
    flying: collections.deque[Any] = collections.deque()  # sent, not fetched
    landed: collections.deque[np.ndarray] = collections.deque()  # fetched, waiting for the rest of the photo

    def finished(most_flying: int) -> Iterator[tuple[_Photo, np.ndarray]]:
        while len(flying) > most_flying:
            landed.extend(np.asarray(flying.popleft()))
        while waiting and len(waiting[0].windows) <= len(landed):
            photo = waiting.popleft()
            yield photo, np.stack([landed.popleft() for _ in photo.windows])

    for photo in photos:
        waiting.append(photo)
        windows.extend(photo.windows)
        while len(windows) >= batch:
            flying.append(patch_logits(np.stack(windows[:batch])))
            del windows[:batch]
            yield from finished(most_flying=1)
    if windows:
        filler = [np.zeros_like(windows[0])] * (batch - len(windows))
        flying.append(patch_logits(np.stack(windows + filler)))
    yield from finished(most_flying=0)
