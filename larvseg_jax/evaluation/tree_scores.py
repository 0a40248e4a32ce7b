"""Scores by the hierarchy of the classes: mIoU of coarser classes, credit for near misses, how far mistakes are.

Added up photo by photo, three counts per class and depth; never a classes x classes matrix.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence

import numpy as np
from jaxtyping import Int32, Int64

from larvseg_jax.evaluation.confusion import pairs_of
from larvseg_jax.evaluation.metrics import CutScores, SegmentationCounts, TreeScores, mean, ratio
from larvseg_jax.evaluation.path_similarity import PathSimilarity
from larvseg_jax.vocabulary.levels import ClassTree


@dataclasses.dataclass(frozen=True)
class CutCounts:
    """Pixels per class that remains when the tree is cut at a depth, summed over photos.

    Attributes:
      depth: of the cut; a class that is less deep stays as it is.
      columns: of each class that which remains of it.
      names: of the remaining classes.
      counts: of these.
    """

    depth: int
    columns: Int32[np.ndarray, " classes"]
    names: tuple[str, ...]
    counts: SegmentationCounts

    @classmethod
    def zeros(cls, tree: ClassTree, depth: int) -> CutCounts:
        """Counts before the first photo."""
        columns, names = tree.cut(depth)
        return cls(depth, columns, names, SegmentationCounts.zeros(len(names)))

    def add_pairs(
        self, labels: Int64[np.ndarray, " k"], predictions: Int64[np.ndarray, " k"], pixels: Int64[np.ndarray, " k"]
    ) -> CutCounts:
        """The counts with so many pixels of each pair of the tree's classes added."""
        label, prediction, n = self.columns[labels], self.columns[predictions], len(self.names)

        def summed(columns: Int32[np.ndarray, " _k"], weights: Int64[np.ndarray, " _k"]) -> Int64[np.ndarray, " n"]:
            total = np.zeros(n, np.int64)
            np.add.at(total, columns, weights)
            return total

        hit = label == prediction
        added = SegmentationCounts(summed(label[hit], pixels[hit]), summed(prediction, pixels), summed(label, pixels))
        return dataclasses.replace(self, counts=self.counts + added)

    def scores(self, in_means: Sequence[bool]) -> CutScores:
        """The scores; `in_means`: the tree's classes that are in means. What remains is, if one of its classes is."""
        hit, predicted, labelled = self.counts.intersection, self.counts.predicted, self.counts.labelled
        iou = ratio(hit, predicted + labelled - hit)
        counted = np.zeros(len(self.names), bool)
        counted[self.columns[np.array(in_means, bool)]] = True
        right = ratio(hit.sum(keepdims=True), labelled.sum(keepdims=True))
        return CutScores(self.depth, self.names, iou, mean(iou, counted), float(right[0]))


@dataclasses.dataclass(frozen=True)
class TreeCounts:
    """What scores by the hierarchy are made of, summed over photos.

    Attributes:
      cuts: at every depth at which other classes remain than at the one above.
      similarity: of the tree's classes.
      steps: between label and prediction, summed over wrong pixels between whose classes there is a path.
      wrong: how many such pixels there are.
    """

    cuts: tuple[CutCounts, ...]
    similarity: PathSimilarity
    steps: float = 0.0
    wrong: int = 0

    @classmethod
    def zeros(cls, tree: ClassTree, similarity: PathSimilarity) -> TreeCounts:
        """Counts before the first photo."""
        cuts: dict[tuple[int, ...], CutCounts] = {}
        for depth in range(tree.ancestors.shape[1]):
            cut = CutCounts.zeros(tree, depth)
            cuts.setdefault(tuple(cut.columns.tolist()), cut)
        return cls(tuple(cut for cut in cuts.values() if len(cut.names) > 1), similarity)

    def add(self, prediction: Int32[np.ndarray, "h w"], label: Int32[np.ndarray, "h w"]) -> TreeCounts:
        """The counts with one photo added: columns of the tree's classes; pixels labelled IGNORE_LABEL do not count."""
        labels, predictions, pixels = pairs_of(prediction, label, len(self.similarity))
        cuts = tuple(cut.add_pairs(labels, predictions, pixels) for cut in self.cuts)
        wrong = labels != predictions
        alike = self.similarity(labels[wrong], predictions[wrong])
        steps = np.divide(1.0, alike, out=np.ones_like(alike), where=alike > 0) - 1
        return TreeCounts(
            cuts,
            self.similarity,
            self.steps + float((steps * pixels[wrong]).sum()),
            self.wrong + int(pixels[wrong][alike > 0].sum()),
        )

    def scores(self, in_means: Sequence[bool]) -> TreeScores:
        """The scores; `in_means` as `CutCounts.scores` takes it."""
        steps = self.steps / self.wrong if self.wrong else float("nan")
        return TreeScores(tuple(cut.scores(in_means) for cut in self.cuts), steps)
