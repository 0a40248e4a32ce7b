"""Open mIoU: mistakes count the less, the more alike the two classes are in WordNet.

H. Zhou et al., *Rethinking Evaluation Metrics of Open-Vocabulary Segmentation*, arXiv:2311.03352 (TPAMI 2025). Let
n[t, p] be the pixels labelled t and predicted p, and s[t, p] in 0..1 how alike these classes are, s[t, t] = 1. Then

    TP[c] = sum over p of s[c, p] n[c, p]            what is labelled c counts by how alike the prediction is
    FN[c] = sum over p of (1 - s[c, p]) n[c, p]      the rest of it, so that TP[c] + FN[c] are all pixels labelled c
    FP[c] = sum over t of (1 - s[t, c]) n[t, c]      what is predicted c counts by how unlike the label is
    Open IoU[c] = TP[c] / (TP[c] + FP[c] + FN[c])

and Open mIoU is its mean. If s is 1 for equal classes and 0 for all others, this is mIoU. Of the similarities that the
paper compares, this is WordNet's path similarity (path_similarity.py). `Paper:` theirs is between words, and a word has
several synsets; ImageNet's classes are synsets.

Among rivals, which have no score of their own, a prediction of a rival still counts for its label by its similarity.
Pixels labelled OTHER are like no class. Absent classes: as for mIoU (metrics.py).
"""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence

import numpy as np
from jaxtyping import Float64, Int32, Int64

from larvseg_jax.evaluation.confusion import pairs_of
from larvseg_jax.evaluation.metrics import OpenScores, mean, ratio
from larvseg_jax.evaluation.path_similarity import PathSimilarity


@dataclasses.dataclass(frozen=True)
class OpenCounts:
    """Pixels per scored class, summed over photos; no matrix of classes x classes here, either.

    Attributes:
      alike: TP, in pixels.
      unlike: FP, in pixels.
      labelled: labelled as the class, TP + FN.
    """

    alike: Float64[np.ndarray, " n"]
    unlike: Float64[np.ndarray, " n"]
    labelled: Int64[np.ndarray, " n"]

    @classmethod
    def zeros(cls, scored: int) -> OpenCounts:
        """Counts before the first photo."""
        return cls(np.zeros(scored), np.zeros(scored), np.zeros(scored, np.int64))

    def add(
        self, prediction: Int32[np.ndarray, "h w"], label: Int32[np.ndarray, "h w"], similarity: PathSimilarity
    ) -> OpenCounts:
        """The counts with one photo added.

        Args:
          prediction: columns of the label set, rivals as they are.
          label: columns that are scored; pixels labelled IGNORE_LABEL do not count.
          similarity: of all columns.
        """
        labels, predictions, pixels = pairs_of(prediction, label, len(similarity))
        alike, n = similarity(labels, predictions), len(self.labelled)
        own = predictions < n
        return OpenCounts(
            self.alike + np.bincount(labels, alike * pixels, n),
            self.unlike + np.bincount(predictions[own], ((1 - alike) * pixels)[own], n),
            self.labelled + np.bincount(labels, pixels, n).astype(np.int64),
        )

    def scores(self, groups: Sequence[str]) -> OpenScores:
        """Scores per class and their means; `groups[i]` is that of class i (`Summary.groups`)."""
        group = np.array(groups, dtype=str)
        in_means = (group != "background") & (group != "ignored")
        iou = ratio(self.alike, self.labelled + self.unlike)
        alike, labelled = self.alike[in_means].sum(keepdims=True), self.labelled[in_means].sum(keepdims=True)
        return OpenScores(
            iou=iou,
            mean_iou=mean(iou, in_means),
            base_iou=mean(iou, group == "base"),
            novel_iou=mean(iou, group == "novel"),
            pixel_acc=float(ratio(alike, labelled)[0]),
        )
