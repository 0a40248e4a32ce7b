"""Evaluation on a set of photos with masks: sliding windows, a label map of each photo, IoU per class."""

from __future__ import annotations

from collections.abc import Callable, Collection, Sequence

import numpy as np
from jaxtyping import Float32, Int32

from data_pipelines.examples import Source
from data_pipelines.feature_files import FeatureRecords
from larvseg_jax.console import track
from larvseg_jax.errors import UserError
from larvseg_jax.evaluation.config import EvalConfig
from larvseg_jax.evaluation.metrics import Summary
from larvseg_jax.evaluation.path_similarity import PathSimilarity
from larvseg_jax.evaluation.photos import PatchValues, label_map, photo_values, photos_of
from larvseg_jax.evaluation.tally import BaseAlone, Tally
from larvseg_jax.evaluation.tree_scores import TreeCounts
from larvseg_jax.vocabulary import LabelSet, Vocabulary
from larvseg_jax.vocabulary.base_novel import BaseNovel

LabelMapOf = Callable[[Float32[np.ndarray, "n h w k"], tuple[int, int], tuple[int, int]], Int32[np.ndarray, "H W"]]
"""Patch values of a photo's windows, its size at test resolution and its own -> columns at its own size."""


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
    tally = Tally(
        label_set, vocabulary, None if label_map_of else BaseAlone.of(label_set, vocabulary, config), similarity, tree
    )
    if label_map_of is None:
        columns = len(label_set)

        def label_map_of(logits: np.ndarray, test_size: tuple[int, int], size: tuple[int, int]) -> np.ndarray:
            return label_map(logits[..., :columns], test_size, size, config)

    total = min(config.limit or len(source), len(source))
    kept: dict[int, np.ndarray] = {}
    photos = photo_values(patch_values, photos_of(source, range(total), config, stored), batch)
    for photo, values in track(photos, total, "evaluation"):
        if not np.isfinite(values).all():
            raise UserError(f"logits of photo {photo.id!r} are not finite: the weights have diverged")
        prediction = tally.add(photo, label_map_of(values, photo.test_size, photo.label.shape), values)
        if photo.index in keep:
            kept[photo.index] = prediction
    return tally.summary(definitions), kept
