"""Segmentation scores from three counts per class, which add up over photos and processes.

Convention: pixels without a label are dropped first; a class that is neither labelled nor predicted
anywhere has no IoU and is left out of the means (and named as absent); a class that is predicted
but never labelled has IoU 0 and does count.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Mapping, Sequence
from typing import NamedTuple

import numpy as np
from jaxtyping import Bool, Float64, Int32, Int64

from larvseg_jax.console import printable
from larvseg_jax.errors import UserError
from larvseg_jax.evaluation.confusion import Confusion
from larvseg_jax.vocabulary import IGNORE_LABEL, Vocabulary
from larvseg_jax.vocabulary.base_novel import BaseNovel


@dataclasses.dataclass(frozen=True)
class SegmentationCounts:
    """Pixels per class, summed over photos; never a classes x classes matrix.

    Attributes:
      intersection: predicted as the class and labelled as it.
      predicted: predicted as the class (among labelled pixels).
      labelled: labelled as the class.
    """

    intersection: Int64[np.ndarray, " n"]
    predicted: Int64[np.ndarray, " n"]
    labelled: Int64[np.ndarray, " n"]

    @classmethod
    def zeros(cls, num_classes: int) -> SegmentationCounts:
        """Counts before the first photo."""
        return cls(*(np.zeros(num_classes, np.int64) for _ in range(3)))

    def add(self, prediction: Int32[np.ndarray, "h w"], label: Int32[np.ndarray, "h w"]) -> SegmentationCounts:
        """The counts with one photo added; pixels labelled IGNORE_LABEL do not count.

        Raises:
          UserError: a prediction or label outside 0..n-1.
        """
        counted = label != IGNORE_LABEL
        prediction, label = prediction[counted], label[counted]
        n = len(self.labelled)
        for what, values in (("prediction", prediction), ("label", label)):
            if values.size and not 0 <= values.min() <= values.max() < n:
                wrong = values.max() if values.max() >= n else values.min()
                raise UserError(f"{what} {wrong} is none of the {n} classes: check the label set of the evaluation")
        return self + SegmentationCounts(
            np.bincount(label[label == prediction], minlength=n),
            np.bincount(prediction, minlength=n),
            np.bincount(label, minlength=n),
        )

    def __add__(self, other: SegmentationCounts) -> SegmentationCounts:
        """Counts of two sets of photos together."""
        return SegmentationCounts(
            self.intersection + other.intersection,
            self.predicted + other.predicted,
            self.labelled + other.labelled,
        )

    def summary(
        self,
        names: Sequence[str],
        vocabulary: Vocabulary,
        definitions: Sequence[BaseNovel] = (),
        *,
        other: bool = False,
    ) -> Summary:
        """Scores per class and their means; `names[i]` is the class of column i, the last one OTHER if `other`."""
        return summarise(self, tuple(names), vocabulary, definitions, other=other)


@dataclasses.dataclass(frozen=True)
class OpenScores:
    """Scores as fractions of one in which a mistake counts the less, the more alike the classes are (open_scores.py).

    Attributes:
      iou: per class; NaN where `Summary.iou` is.
      mean_iou, base_iou, novel_iou: as in `Summary`.
      pixel_acc: mean similarity of prediction and label, over labelled pixels without background and ignored classes.
    """

    iou: Float64[np.ndarray, " n"]
    mean_iou: float
    base_iou: float
    novel_iou: float
    pixel_acc: float

    def scalars(self) -> dict[str, float]:
        """The means by name."""
        return {
            "open_mIoU": self.mean_iou,
            "open_mIoU_base": self.base_iou,
            "open_mIoU_novel": self.novel_iou,
            "open_aAcc": self.pixel_acc,
        }


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


class TreeScores(NamedTuple):
    """Scores by the hierarchy of the classes (tree_scores.py).

    Attributes:
      cuts: the tree cut at every depth at which other classes remain, the least deep first.
      steps: mean steps from the label to the prediction, over wrong pixels between whose classes there is a path;
        NaN without any.
    """

    cuts: tuple[CutScores, ...]
    steps: float


@dataclasses.dataclass(frozen=True)
class Summary:
    """Scores as fractions of one; NaN where undefined.

    Attributes:
      names, groups: class names and "base", "novel", "background", "ignored" or "" (neither).
      novel: which classes are novel, those that are left out of the means, too.
      iou, acc, dice: per class I/(P+G-I), I/G, 2I/(P+G).
      labelled: labelled pixels per class.
      predicted: those of them that are predicted as the class.
      mean_iou, base_iou, novel_iou: means over all, base, novel classes, without background and ignored ones.
      harmonic_iou: harmonic mean of base_iou and novel_iou.
      base_novel_iou: (base, novel) means under other definitions of base and novel, by their label.
      background_iou: NaN where there is no background class.
      mean_acc: mean of acc over the classes of mean_iou.
      pixel_acc: share of labelled pixels predicted right, background included, ignored classes left out.
      base_pixel_acc, novel_pixel_acc: the same share of the pixels labelled as base and as novel classes.
      absent: classes neither labelled nor predicted, hence in no mean.
      confusion: which classes are taken for which; None where that was not counted.
      photos: how many photos show each class; None where that was not counted.
      photo_iou: of each photo the mean IoU of the classes that it shows, ignored ones left out; NaN where there is
        none. In the order of the photos.
      base_alone_iou: base_iou if novel classes neither compete nor count; NaN where that was not measured.
      open: scores by WordNet's similarities, where these were asked for.
      tree: scores by the hierarchy of the classes, likewise.
    """

    names: tuple[str, ...]
    groups: tuple[str, ...]
    novel: Bool[np.ndarray, " n"]
    iou: Float64[np.ndarray, " n"]
    acc: Float64[np.ndarray, " n"]
    dice: Float64[np.ndarray, " n"]
    labelled: Int64[np.ndarray, " n"]
    predicted: Int64[np.ndarray, " n"]
    mean_iou: float
    base_iou: float
    novel_iou: float
    harmonic_iou: float
    base_novel_iou: Mapping[str, tuple[float, float]]
    background_iou: float
    mean_acc: float
    pixel_acc: float
    base_pixel_acc: float
    novel_pixel_acc: float
    absent: tuple[str, ...]
    confusion: Confusion | None = None
    photos: Int64[np.ndarray, " n"] | None = None
    photo_iou: tuple[float, ...] = ()
    base_alone_iou: float = math.nan
    open: OpenScores | None = None
    tree: TreeScores | None = None

    @property
    def base_as_novel(self) -> float:
        """Share of the pixels labelled as base classes that novel classes win; NaN where that was not counted."""
        return self.confusion.share(self._base, self.novel) if self.confusion else math.nan

    @property
    def novel_as_base(self) -> float:
        """Share of the pixels labelled as novel classes that base classes win; NaN where that was not counted."""
        return self.confusion.share(self.novel, self._base) if self.confusion else math.nan

    @property
    def _base(self) -> Bool[np.ndarray, " n"]:
        return np.array(self.groups, dtype=str) == "base"

    def scalars(self) -> dict[str, float]:
        """The means under the names of the metric log; those of some classes only where such classes compete."""
        values = {
            "mIoU": self.mean_iou,
            "mIoU_base": self.base_iou,
            "mIoU_novel": self.novel_iou,
            "hIoU": self.harmonic_iou,
            **{f"mIoU_base[{label}]": base for label, (base, _) in self.base_novel_iou.items()},
            **{f"mIoU_novel[{label}]": novel for label, (_, novel) in self.base_novel_iou.items()},
            "mAcc": self.mean_acc,
            "aAcc": self.pixel_acc,
        }
        for name, share in (("aAcc_base", self.base_pixel_acc), ("aAcc_novel", self.novel_pixel_acc)):
            values |= {} if math.isnan(share) else {name: share}
        if "background" in self.groups:
            values["IoU_background"] = self.background_iou
        if not math.isnan(self.base_alone_iou):
            values["mIoU_base_alone"] = self.base_alone_iou
        if self.confusion and "base" in self.groups and self.novel.any():
            values |= {"base_as_novel": self.base_as_novel, "novel_as_base": self.novel_as_base}
        return values | (self.open.scalars() if self.open else {})

    def text(self) -> str:
        """The means in percent, and the absent classes by name, for the terminal."""
        lines = ["  ".join(f"{name} {100 * value:.2f}" for name, value in self.scalars().items())]
        if self.absent:
            lines.append(f"absent: {', '.join(map(printable, self.absent))}")
        return "\n".join(lines)


def iou_of_photo(counts: SegmentationCounts, left_out: Bool[np.ndarray, " n"]) -> float:
    """Mean IoU of the classes that a photo shows, by the counts of this photo alone; NaN where there is none."""
    iou = ratio(counts.intersection, counts.predicted + counts.labelled - counts.intersection)
    return mean(iou, (counts.labelled > 0) & ~left_out)


def summarise(
    counts: SegmentationCounts,
    names: tuple[str, ...],
    vocabulary: Vocabulary,
    definitions: Sequence[BaseNovel],
    *,
    other: bool = False,
) -> Summary:
    """Turns counts into scores; see `Summary` for what each one means. `other`: the last class is a background."""
    hit, predicted, labelled = counts.intersection, counts.predicted, counts.labelled
    groups = (*vocabulary.groups(names[:-1]), "background") if other else vocabulary.groups(names)
    group = np.array(groups, dtype=str)
    iou = ratio(hit, predicted + labelled - hit)
    acc = ratio(hit, labelled)
    in_means = (group != "background") & (group != "ignored")
    base, novel = mean(iou, group == "base"), mean(iou, group == "novel")
    base_novel_iou = {}
    for definition in definitions:
        in_base = np.array([name in definition.base for name in names], bool)
        base_novel_iou[definition.label] = mean(iou, in_means & in_base), mean(iou, in_means & ~in_base)
    return Summary(
        names=names,
        groups=groups,
        novel=np.isin(names, vocabulary.novel),
        iou=iou,
        acc=acc,
        dice=ratio(2 * hit, predicted + labelled),
        labelled=labelled,
        predicted=predicted,
        mean_iou=mean(iou, in_means),
        base_iou=base,
        novel_iou=novel,
        harmonic_iou=2 * base * novel / (base + novel) if base + novel != 0 else 0.0,
        base_novel_iou=base_novel_iou,
        background_iou=mean(iou, group == "background"),
        mean_acc=mean(acc, in_means),
        pixel_acc=_share(hit, labelled, group != "ignored"),
        base_pixel_acc=_share(hit, labelled, group == "base"),
        novel_pixel_acc=_share(hit, labelled, group == "novel"),
        absent=tuple(name for name, value in zip(names, iou, strict=True) if np.isnan(value)),
    )


def _share(hit: Int64[np.ndarray, " n"], labelled: Int64[np.ndarray, " n"], chosen: Bool[np.ndarray, " n"]) -> float:
    return float(ratio(hit[chosen].sum(keepdims=True), labelled[chosen].sum(keepdims=True))[0])


def ratio(
    numerator: Int64[np.ndarray, " n"] | Float64[np.ndarray, " n"],
    denominator: Int64[np.ndarray, " n"] | Float64[np.ndarray, " n"],
) -> Float64[np.ndarray, " n"]:
    """Quotients, NaN where the denominator is 0."""
    defined = denominator > 0
    return np.divide(numerator, denominator, out=np.full(len(numerator), np.nan), where=defined)


def mean(values: Float64[np.ndarray, " n"], chosen: Bool[np.ndarray, " n"]) -> float:
    """Mean of the chosen values that are defined; NaN where there is none."""
    values = values[chosen & ~np.isnan(values)]
    return float(values.mean()) if values.size else float("nan")
