"""Scores by the hierarchy of the classes, from a confusion matrix: mIoU of coarser classes, credit for near misses.

A confusion matrix has the pixels labelled t and predicted p at [t, p]; pixels without a label are in none. Evaluations
of very many classes keep none (metrics.py): this is for who has one.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from jaxtyping import Float64, Int64

from larvseg_jax.errors import UserError
from larvseg_jax.evaluation.metrics import OpenScores, SegmentationCounts, mean, ratio
from larvseg_jax.evaluation.open_scores import OpenCounts
from larvseg_jax.evaluation.path_similarity import PathSimilarity
from larvseg_jax.vocabulary.levels import ClassTree


class CutScores(NamedTuple):
    """Scores of the classes that remain when the tree is cut at a depth; as fractions of one, NaN where undefined.

    Attributes:
      depth: of the cut.
      names: of the remaining classes.
      iou: of each.
      mean_iou: over those that are labelled or predicted, without any that has nothing but left-out classes.
      pixel_acc: share of the labelled pixels that are predicted right, with all classes.
    """

    depth: int
    names: tuple[str, ...]
    iou: Float64[np.ndarray, " n"]
    mean_iou: float
    pixel_acc: float


def cut_scores(
    confusion: Int64[np.ndarray, "n n"], tree: ClassTree, depth: int, leave_out: Sequence[str] = ()
) -> CutScores:
    """Scores when every class counts as what is above it at a depth: mistakes within one of these are none.

    Args:
      confusion: of the tree's classes, in its order.
      tree: of the classes (levels.py, which says how a class with several ways up is treated).
      depth: of the cut; a class that is less deep stays as it is.
      leave_out: names of classes that are in no mean: background, ignored ones.

    Raises:
      UserError: the matrix is one of other classes.
    """
    if len(confusion) != len(tree.names):
        raise UserError(f"the confusion matrix is of {len(confusion)} classes, the tree of {len(tree.names)}")
    columns, names = tree.cut(depth)
    merged = np.zeros((len(names), len(names)), np.int64)
    np.add.at(merged, (columns[:, None], columns[None, :]), confusion)
    counts = SegmentationCounts(merged.diagonal().copy(), merged.sum(0), merged.sum(1))
    iou = ratio(counts.intersection, counts.predicted + counts.labelled - counts.intersection)
    in_means = np.zeros(len(names), bool)
    in_means[columns[[name not in leave_out for name in tree.names]]] = True
    right = ratio(counts.intersection.sum(keepdims=True), counts.labelled.sum(keepdims=True))
    return CutScores(depth, names, iou, mean(iou, in_means), float(right[0]))


class TreeCredit(NamedTuple):
    """How near the predictions are.

    Attributes:
      scores: in which a mistake counts by 1 / (1 + steps) between the two classes (open_scores.py).
      steps: mean steps from the label to the prediction, over wrong pixels between whose classes there is a path;
        NaN without any.
    """

    scores: OpenScores
    steps: float


def tree_credit(
    confusion: Int64[np.ndarray, "n n"], similarity: PathSimilarity, groups: Sequence[str] = ()
) -> TreeCredit:
    """Open mIoU and the mean distance of mistakes, by steps between synsets, whatever the way.

    Args:
      confusion: of the similarity's columns.
      similarity: path_similarity.py.
      groups: "base", "novel", "background", ... of each class (`Vocabulary.groups`).

    Raises:
      UserError: the matrix is one of other classes.
    """
    if len(confusion) != len(similarity):
        raise UserError(f"the confusion matrix is of {len(confusion)} classes, the similarities of {len(similarity)}")
    labels, predictions = np.nonzero(confusion)
    pixels = confusion[labels, predictions]
    counts = OpenCounts.zeros(len(confusion)).add_pairs(labels, predictions, pixels, similarity)
    wrong = labels != predictions
    alike = similarity(labels[wrong], predictions[wrong])
    steps = np.divide(1.0, alike, out=np.ones_like(alike), where=alike > 0) - 1
    total = (steps * pixels[wrong]).sum(keepdims=True)
    mean_steps = float(ratio(total, pixels[wrong][alike > 0].sum(keepdims=True))[0])
    return TreeCredit(counts.scores(groups or [""] * len(confusion)), mean_steps)
