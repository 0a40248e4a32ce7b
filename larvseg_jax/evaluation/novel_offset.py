"""Calibrated stacking: a constant on the scores of novel classes, so that they win neither too often nor too rarely.

W.-L. Chao et al., *An Empirical Study and Analysis of Generalized Zero-Shot Learning*, ECCV 2016, section 3.2, where it
is taken off the scores of seen classes.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence

import numpy as np
from jaxtyping import Float32

from larvseg_jax.errors import UserError
from larvseg_jax.evaluation.config import EvalConfig
from larvseg_jax.evaluation.photos import Photo
from larvseg_jax.evaluation.sliding_window import best_classes, mosaic
from larvseg_jax.methods.method import Dense, with_offsets
from larvseg_jax.vocabulary import LabelSet, Vocabulary

BASE_LOST = 0.02
"""Of the pixels that base classes (and background) get right when they compete alone, the share that a chosen offset
leaves to novel classes."""

_BINS = np.linspace(-100.0, 100.0, 20_001)  # of margins: an offset is found to 0.01


def with_novel_offset(scorer: Dense, names: Sequence[str], vocabulary: Vocabulary, offset: float) -> Dense:
    """The scorer of classes with these names, the offset added to the scores of those that are novel."""
    offsets = novel_offsets(names, vocabulary, offset)
    return with_offsets(scorer, offsets) if offsets.any() else scorer


def novel_offsets(names: Sequence[str], vocabulary: Vocabulary, offset: float) -> Float32[np.ndarray, " n"]:
    """What is added to the score of each class: the offset to those that are novel."""
    return np.where(np.isin(names, vocabulary.novel), offset, 0.0).astype(np.float32)


def check_choice(label_set: LabelSet, vocabulary: Vocabulary) -> None:
    """UserError where no offset can be chosen: not both base and novel classes compete."""
    novel = np.isin(label_set.names, vocabulary.novel)
    if not novel.any() or "base" not in vocabulary.groups(label_set.names):
        raise UserError("an offset of novel scores is chosen where base and novel classes compete: here are not both")


def choose_novel_offset(
    photos: Iterable[tuple[Photo, Float32[np.ndarray, "n h w k"]]],
    label_set: LabelSet,
    vocabulary: Vocabulary,
    config: EvalConfig,
) -> float:
    """The offset at which novel classes win BASE_LOST of what base classes get right alone; 0 if that is nothing.

    No mask of a novel class is looked at: pixels labelled as one do not count.

    Args:
      photos: with the logits of their windows, without an offset.
      label_set: the classes that compete.
      vocabulary: says which of them are novel.
      config: how photos are stitched.

    Raises:
      UserError: not both base and novel classes compete.
    """
    check_choice(label_set, vocabulary)
    novel = np.isin(label_set.names, vocabulary.novel)
    others = np.flatnonzero(~novel)
    margins = np.zeros(len(_BINS) - 1, np.int64)
    for photo, logits in photos:
        stitching = config.windows.stitching(logits.shape[1:3], photo.test_size, photo.label.shape)
        patches = mosaic(logits, stitching.window_rows)
        winner, base = best_classes(np.ascontiguousarray(patches[..., others]), stitching.rows, stitching.columns)
        _, rival = best_classes(np.ascontiguousarray(patches[..., novel]), stitching.rows, stitching.columns)
        right = others[winner] == photo.label
        margins += np.histogram(np.clip((base - rival)[right], _BINS[0], _BINS[-1]), _BINS)[0]
    if not margins.any():
        return 0.0
    lost = np.cumsum(margins) / margins.sum()
    return float(_BINS[1:][np.searchsorted(lost, BASE_LOST)].round(2))
