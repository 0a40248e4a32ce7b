"""Evaluation on a set of photos with masks: sliding windows, a label map of each photo, IoU per class."""

from __future__ import annotations

import collections
import dataclasses
import itertools
from collections.abc import Callable, Collection, Iterator, Sequence
from concurrent import futures
from typing import Any

import jax
import numpy as np
from jaxtyping import Bool, Float32, Int32, PyTree

from data_pipelines.examples import Source
from data_pipelines.feature_files import FeatureRecords
from larvseg_jax.console import track
from larvseg_jax.errors import UserError
from larvseg_jax.evaluation import sliding_window
from larvseg_jax.evaluation.config import EvalConfig
from larvseg_jax.evaluation.confusion import Confusion
from larvseg_jax.evaluation.metrics import SegmentationCounts, Summary, iou_of_photo
from larvseg_jax.evaluation.open_scores import OpenCounts
from larvseg_jax.evaluation.path_similarity import PathSimilarity
from larvseg_jax.evaluation.tree_scores import TreeCounts
from larvseg_jax.vocabulary import IGNORE_LABEL, LabelSet, Vocabulary
from larvseg_jax.vocabulary.base_novel import BaseNovel

_PREFETCHED = 4  # photos decoded ahead of the device

PatchValues = Callable[[PyTree], PyTree]
"""W windows -> (W, h, w, n) float32 values of their patches; jitted, W fixed."""

LabelMapOf = Callable[[Float32[np.ndarray, "n h w k"], tuple[int, int], tuple[int, int]], Int32[np.ndarray, "H W"]]
"""Patch values of a photo's windows, its size at test resolution and its own -> columns at its own size."""


@dataclasses.dataclass(frozen=True)
class Photo:
    """A photo on its way through the network.

    Attributes:
      index: its number in the source.
      id: its name.
      label: of its own size, in columns.
      test_size: its height and width at test resolution.
      windows: normalised pictures (s, s, 3), or what the first blocks have made of these (`leading`, `patches`).
    """

    index: int
    id: str
    label: Int32[np.ndarray, "H W"]
    test_size: tuple[int, int]
    windows: Sequence[PyTree]


def evaluate(
    patch_values: PatchValues,
    source: Source,
    label_set: LabelSet,
    vocabulary: Vocabulary,
    config: EvalConfig,
    *,
    batch: int,
    definitions: Sequence[BaseNovel] = (),
    keep: Collection[int] = (),
    label_map_of: LabelMapOf | None = None,
    stored: FeatureRecords | None = None,
    similarity: PathSimilarity | None = None,
    tree: TreeCounts | None = None,
) -> tuple[Summary, dict[int, Int32[np.ndarray, "H W"]]]:
    """Scores a model on photos at their own resolution.

    Args:
      patch_values: see `PatchValues`. Called with exactly `batch` windows: those of several photos share a call, the
        last one is filled up with zeros.
      source: photos with masks.
      label_set: the classes that compete.
      vocabulary: says which of them are base, novel, background, ignored.
      config: sizes and the way back to the photo's size.
      batch: W, windows per call of the network.
      definitions: other definitions of base and novel to report.
      keep: numbers of the photos whose label maps are wanted.
      label_map_of: see `LabelMapOf`; by default the values are logits of the label set's columns, and those beyond
        (padding) are cut off.
      stored: tokens of the photos' windows, which `patch_values` takes then in place of pictures.
      similarity: of the label set's columns, if the scores by it are wanted, too (open_scores.py).
      tree: zeros for the label set's columns, if the scores by their hierarchy are wanted, too (tree_scores.py).

    Returns:
      The scores, and the predicted label map of each photo in `keep`.

    Raises:
      UserError: values that are not finite, with the photo's id.
      DataError: a photo or its stored tokens cannot be read.
    """
    alone = None if label_map_of else BaseAlone.of(label_set, vocabulary, config)
    if label_map_of is None:
        columns = len(label_set)

        def label_map_of(logits: np.ndarray, test_size: tuple[int, int], size: tuple[int, int]) -> np.ndarray:
            return label_map(logits[..., :columns], test_size, size, config)

    total = min(config.limit or len(source), len(source))
    scored = label_set.scored
    counts, open_counts = SegmentationCounts.zeros(scored), OpenCounts.zeros(scored)
    confusion, shown, photo_iou = Confusion.zeros(), np.zeros(scored, np.int64), []
    ignored = np.zeros(scored, bool)  # with OTHER, if there are rivals
    named = scored - (label_set.rivals > 0)
    ignored[:named] = np.isin(vocabulary.groups(label_set.names[:named]), ["ignored"])
    kept: dict[int, np.ndarray] = {}
    photos = photo_values(patch_values, photos_of(source, range(total), config, stored), batch)
    for photo, values in track(photos, total, "evaluation"):
        if not np.isfinite(values).all():
            raise UserError(f"logits of photo {photo.id!r} are not finite: the weights have diverged")
        labels = label_map_of(values, photo.test_size, photo.label.shape)
        # Rivals are the last columns, after that of OTHER, and count as it.
        prediction = np.minimum(labels, np.int32(scored - 1))
        of_photo = SegmentationCounts.zeros(scored).add(prediction, photo.label)
        counts, shown = counts + of_photo, shown + (of_photo.labelled > 0)
        photo_iou.append(iou_of_photo(of_photo, ignored))
        confusion = confusion.add(prediction, photo.label, scored)
        if alone is not None:
            alone = alone.add(values, photo, prediction)
        if similarity is not None:
            open_counts = open_counts.add(labels, photo.label, similarity)
        if tree is not None:
            tree = tree.add(labels, photo.label)
        if photo.index in keep:
            kept[photo.index] = prediction
    summary = counts.summary(label_set.names[:scored], vocabulary, definitions, other=label_set.rivals > 0)
    base_alone = alone.scores(vocabulary).base_iou if alone else float("nan")
    summary = dataclasses.replace(
        summary, confusion=confusion, photos=shown, photo_iou=tuple(photo_iou), base_alone_iou=base_alone
    )
    if similarity is not None:
        summary = dataclasses.replace(summary, open=open_counts.scores(summary.groups))
    if tree is not None:
        in_means = [group not in ("background", "ignored") for group in summary.groups] + [False] * label_set.rivals
        summary = dataclasses.replace(summary, tree=tree.scores(in_means))
    return summary, kept


@dataclasses.dataclass(frozen=True)
class BaseAlone:
    """What the segmenter scores without its novel classes: they neither compete, nor do pixels labelled so count.

    Attributes:
      label_set: the classes of the evaluation.
      novel: which of its columns are novel.
      config: how photos are stitched.
      counts: of the pixels so far.
    """

    label_set: LabelSet
    novel: Bool[np.ndarray, " n"]
    config: EvalConfig
    counts: SegmentationCounts

    @classmethod
    def of(cls, label_set: LabelSet, vocabulary: Vocabulary, config: EvalConfig) -> BaseAlone | None:
        """Counts before the first photo; None where not both base and novel classes compete."""
        novel = np.isin(label_set.names, vocabulary.novel)
        if not novel.any() or "base" not in vocabulary.groups(label_set.names):
            return None
        return cls(label_set, novel, config, SegmentationCounts.zeros(len(label_set)))

    def add(self, logits: Float32[np.ndarray, "n h w k"], photo: Photo, joint: Int32[np.ndarray, "H W"]) -> BaseAlone:
        """The counts with one photo added, of whose pixels `joint` are the winners among all classes."""
        prediction = joint
        if self.novel[joint].any():
            others = np.flatnonzero(~self.novel).astype(np.int32)
            prediction = others[label_map(logits[..., others], photo.test_size, photo.label.shape, self.config)]
        is_novel = self.novel[np.maximum(photo.label, 0)] & (photo.label != IGNORE_LABEL)
        label = np.where(is_novel, np.int32(IGNORE_LABEL), photo.label)
        return dataclasses.replace(self, counts=self.counts.add(prediction, label))

    def scores(self, vocabulary: Vocabulary) -> Summary:
        """The scores, in which novel classes are absent."""
        return self.counts.summary(self.label_set.names, vocabulary)


def label_map(
    logits: Float32[np.ndarray, "n h w k"], test_size: tuple[int, int], size: tuple[int, int], config: EvalConfig
) -> Int32[np.ndarray, "H W"]:
    """Patch logits of a photo's windows -> labels at the photo's own `size` (H, W)."""
    stitched_size = size if config.resize == "logits" else test_size
    stitching = config.windows.stitching(logits.shape[1:3], test_size, stitched_size)
    patches = sliding_window.mosaic(logits, stitching.window_rows)
    labels = sliding_window.predict_label_map(patches, stitching.rows, stitching.columns)
    return sliding_window.resize_label_map(labels, *size) if config.resize == "labels" else labels


def photos_of(
    source: Source, numbers: Sequence[int], config: EvalConfig, stored: FeatureRecords | None = None
) -> Iterator[Photo]:
    """The photos with these numbers in order, decoded and cut a few ahead in threads."""

    def load(index: int) -> Photo:
        example = source[index]
        image = example["image"]
        test_size = config.windows.test_size(image.shape)
        if stored is not None:
            return Photo(index, example["id"], example["label"], test_size, _stored(stored, index, example["id"]))
        return Photo(index, example["id"], example["label"], test_size, list(config.windows.cut(image)))

    with futures.ThreadPoolExecutor(_PREFETCHED) as pool:
        waiting = iter(numbers)
        loading = collections.deque(pool.submit(load, i) for i in itertools.islice(waiting, _PREFETCHED))
        while loading:
            photo = loading.popleft().result()
            loading.extend(pool.submit(load, i) for i in itertools.islice(waiting, 1))
            yield photo


def _stored(stored: FeatureRecords, index: int, photo: str) -> list[dict[str, np.ndarray]]:
    name, windows = stored.windows(index)
    if name != photo:
        raise UserError(
            f"photo {index} is {photo!r}, and the features of the evaluation have {name!r} in its place: make them anew"
        )
    return windows


def photo_values(patch_values: PatchValues, photos: Iterator[Photo], batch: int) -> Iterator[tuple[Photo, Any]]:
    """Sends windows in full batches and gives each photo its windows' values (arrays (n, ...)), in order.

    One batch stays in flight, so that the device computes while the host stitches.
    """
    pending: collections.deque[Photo] = collections.deque()
    windows: list[PyTree] = []  # not sent yet
    in_flight: collections.deque[Any] = collections.deque()  # sent, not fetched
    arrived: collections.deque[PyTree] = collections.deque()  # fetched, kept for the rest of the photo

    def finished(at_most: int) -> Iterator[tuple[Photo, Any]]:
        while len(in_flight) > at_most:
            values = jax.tree.map(np.asarray, in_flight.popleft())
            arrived.extend(jax.tree.map(lambda x, i=i: x[i], values) for i in range(batch))
        while pending and len(pending[0].windows) <= len(arrived):
            photo = pending.popleft()
            yield photo, _stack([arrived.popleft() for _ in photo.windows])

    for photo in photos:
        pending.append(photo)
        windows.extend(photo.windows)
        while len(windows) >= batch:
            in_flight.append(patch_values(_stack(windows[:batch])))
            del windows[:batch]
            yield from finished(at_most=1)
    if windows:
        filler = [jax.tree.map(np.zeros_like, windows[0])] * (batch - len(windows))
        in_flight.append(patch_values(_stack(windows + filler)))
    yield from finished(at_most=0)


def _stack(items: Sequence[PyTree]) -> PyTree:
    return jax.tree.map(lambda *x: np.stack(x), *items)
