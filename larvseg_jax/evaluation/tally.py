"""What is counted of the photos of an evaluation, and the scores that it makes."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence

import numpy as np
from jaxtyping import Bool, Float32, Int32

from larvseg_jax.evaluation.config import EvalConfig
from larvseg_jax.evaluation.confusion import Confusion
from larvseg_jax.evaluation.metrics import SegmentationCounts, Summary, iou_of_photo
from larvseg_jax.evaluation.open_scores import OpenCounts
from larvseg_jax.evaluation.path_similarity import PathSimilarity
from larvseg_jax.evaluation.photos import Photo, label_map
from larvseg_jax.evaluation.tree_scores import TreeCounts
from larvseg_jax.vocabulary import IGNORE_LABEL, LabelSet, Vocabulary
from larvseg_jax.vocabulary.base_novel import BaseNovel


class Tally:
    """The counts of an evaluation, photo by photo.

    Args:
      label_set: the classes that compete.
      vocabulary: says which of them are base, novel, background, ignored.
      alone: counts of base classes alone, before the first photo; None: without.
      similarity: of the label set's columns; None: without the scores by it.
      tree: zeros for these columns; None: without the scores by their hierarchy.
    """

    def __init__(
        self,
        label_set: LabelSet,
        vocabulary: Vocabulary,
        alone: BaseAlone | None = None,
        similarity: PathSimilarity | None = None,
        tree: TreeCounts | None = None,
    ) -> None:
        self._label_set, self._vocabulary, self._scored = label_set, vocabulary, label_set.scored
        self._alone, self._similarity, self._tree = alone, similarity, tree
        scored, named = self._scored, self._scored - (label_set.rivals > 0)
        self._counts, self._open = SegmentationCounts.zeros(scored), OpenCounts.zeros(scored)
        self._confusion, self._photos = Confusion.zeros(), np.zeros(scored, np.int64)
        self._photo_iou: list[float] = []
        self._ignored = np.zeros(scored, bool)  # with OTHER, if there are rivals
        self._ignored[:named] = np.isin(vocabulary.groups(label_set.names[:named]), ["ignored"])

    def add(
        self, photo: Photo, labels: Int32[np.ndarray, "H W"], logits: Float32[np.ndarray, "n h w k"]
    ) -> Int32[np.ndarray, "H W"]:
        """Counts a photo, of which `labels` are the winners and `logits` the values of its windows.

        Returns the winners with rivals as OTHER.
        """
        # Rivals are the last columns, after that of OTHER, and count as it.
        prediction = np.minimum(labels, np.int32(self._scored - 1))
        counts = SegmentationCounts.zeros(self._scored).add(prediction, photo.label)
        self._counts, self._photos = self._counts + counts, self._photos + (counts.labelled > 0)
        self._photo_iou.append(iou_of_photo(counts, self._ignored))
        self._confusion = self._confusion.add(prediction, photo.label, self._scored)
        if self._alone is not None:
            self._alone = self._alone.add(logits, photo, prediction)
        if self._similarity is not None:
            self._open = self._open.add(labels, photo.label, self._similarity)
        if self._tree is not None:
            self._tree = self._tree.add(labels, photo.label)
        return prediction

    def summary(self, definitions: Sequence[BaseNovel]) -> Summary:
        """The scores; `definitions`: other lists of base and novel classes to report."""
        label_set, scored = self._label_set, self._scored
        rivals = label_set.rivals > 0
        summary = self._counts.summary(label_set.names[:scored], self._vocabulary, definitions, other=rivals)
        in_means = [group not in ("background", "ignored") for group in summary.groups] + [False] * label_set.rivals
        return dataclasses.replace(
            summary,
            confusion=self._confusion,
            photos=self._photos,
            photo_iou=tuple(self._photo_iou),
            base_alone_iou=self._alone.scores(self._vocabulary).base_iou if self._alone else float("nan"),
            open=None if self._similarity is None else self._open.scores(summary.groups),
            tree=None if self._tree is None else self._tree.scores(in_means),
        )


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
