"""The oracle test: segments every photo by the features of a few of its own labelled pixels.

The whole photo at test scale goes through the network. Its unit patch features are interpolated to the size of
the label at test scale and brought to norm 1 again; of every class that the label shows a few pixels are drawn;
the class's score at a pixel is the greatest cosine to those drawn, that of all other classes 0. Scores are
resized to the photo's own size, the highest wins. Class embeddings have no part in it, so the classes are those
of the data and need not be in the run's vocabulary. `Original:` a softmax before the argmax, which changes nothing.

Which pixels count:
  "all"         every labelled pixel, every class drawn: what the authors' code does.
  "novel b/n"   only pixels of the n novel classes of that definition, and only these drawn and competing.
`Paper:` Table 1 prints novel classes and does not say which of the two it is; with novel_only both are reported.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple, cast

import numpy as np
from jaxtyping import Float, Int64
from rich.table import Table

from larvseg_jax.config import Experiment
from larvseg_jax.console import console, stage
from larvseg_jax.errors import UserError
from larvseg_jax.evaluation.metrics import SegmentationCounts, Summary
from larvseg_jax.evaluation.windows import Windows
from larvseg_jax.oracle.cosines import Drawing
from larvseg_jax.oracle.counting import Pixels, count
from larvseg_jax.oracle.networks import Features, of_backbone, of_run
from larvseg_jax.oracle.photos import Labelled, Photos, of_data, of_evaluation
from larvseg_jax.report.statistics import estimate, percent
from larvseg_jax.trained import Trained, load_trained


class Score(NamedTuple):
    """Mean IoU of some classes as a fraction of one, for each repeat.

    Attributes:
      features: which, "block 4".
      pixels: which count.
      classes: the mean is over which: "all", "base", "novel", "novel 58/92", ...
      miou: one for each repeat.
    """

    features: str
    pixels: str
    classes: str
    miou: tuple[float, ...]


@dataclasses.dataclass(frozen=True)
class Findings:
    """What an oracle test has found.

    Attributes:
      features: the kinds of features, in order.
      labels: of the definitions of base and novel classes; "" is the vocabulary's own.
      scores: of every kind of features.
      class_iou: IoU of each class where all pixels count, for every kind of features and repeat; NaN: in no label.
      labelled: pixels of each class.
    """

    features: tuple[str, ...]
    labels: tuple[str, ...]
    scores: tuple[Score, ...]
    class_iou: Float[np.ndarray, "features repeats n"]
    labelled: Int64[np.ndarray, " n"]


class TitledTable(NamedTuple):
    """A title, and the cells of a table whose first line is its head."""

    title: str
    cells: list[list[str]]


@dataclasses.dataclass(frozen=True)
class Subject:
    """What is tested, and on which photos.

    Attributes:
      run: folder of a run or of a checkpoint, or an exported file; None: none is.
      step: which checkpoint of it; the newest by default.
      config: names the photos and, in `pretrained`, a backbone that is tested; None: no config was given.
      blocks: "all" or "4,8,12"; "": the last features only.
      photos: a data set in place of the evaluation of the config, or of that of the run where there is no config.
      data_root: where the data is, if not where the config says.
      limit: only the first so many photos; 0 = all.
    """

    run: Path | None = None
    step: int | None = None
    config: Experiment | None = None
    blocks: str = ""
    photos: Photos | None = None
    data_root: Path | None = None
    limit: int = 0

    def open(self) -> tuple[Features, Labelled, tuple[int, int]]:
        """The features, the photos and their test scale: (long side, short side) limits in pixels.

        The scale is that of the first evaluation by name, of the config or, without one, of the run. UserError if
        nothing is to be tested, or what is cannot be read.
        """
        found, trained = None, None
        with stage("weights"):
            if self.config is not None and self.config.pretrained:
                found, story = of_backbone(self.config, self.blocks)
                console.print(f"  {story}")
            if self.run is not None:
                trained = load_trained(self.run, self.step)
                console.print(f"  step {trained.step} of {self.run}")
                found = _beside(found, of_run(trained, self.blocks), self.run.name)
        if found is None:
            raise UserError(
                "nothing is tested: give --config=FILE.py with --pretrained=FILE, or --run=DIR (docs/exploratory.md)"
            )
        scale = _scale(self.config) if trained is None or self.config is not None else trained.windows.scale
        if self.photos is not None and self.data_root is not None:  # a run that does not say its config will do
            return found, of_data(self.photos, self.data_root, self.limit), scale
        config = self.config or cast(Trained, trained).experiment()
        root = self.data_root or config.data_root
        if self.photos is not None:
            return found, of_data(self.photos, root, self.limit), scale
        return found, of_evaluation(dataclasses.replace(config, data_root=root), self.limit), scale


def _beside(found: Features | None, of_run: Features, run: str) -> Features:
    """The features of a run behind those of a backbone, with the name of the run where both are there."""
    if found is None:
        return of_run
    return found.beside(Features(tuple(f"{run}, {name}" for name in of_run.names), of_run.embed))


def _scale(config: Experiment | None) -> tuple[int, int]:
    evaluations = config.evals if config is not None else {}
    return (evaluations[min(evaluations)].windows if evaluations else Windows()).scale


def oracle_test(
    found: Features, photos: Labelled, scale: tuple[int, int], drawing: Drawing, *, novel_only: bool = False
) -> Findings:
    """Runs the oracle test and prints its tables: mean and standard error over the repeats.

    Args:
      found: what the network makes of a photo.
      photos: which photos.
      scale: (long side, short side) limits at test scale, pixels.
      drawing: which pixels lend their features.
      novel_only: also score with the base classes left out.
    """
    groups = photos.groups
    if novel_only and not groups:
        raise UserError(
            f"--novel_only: {photos.called} has no novel classes: use ade20k_150 or ade20k_full_847, or a config that "
            "names novel ones"
        )
    scored = [Pixels("all", np.ones(len(photos.names), bool))]
    if novel_only:
        scored += [Pixels(of.name("novel"), of.novel) for of in groups]
    counts = count(found.embed, len(found.names), photos.source, scale, drawing, scored, photos.total)
    scores, class_iou = [], []
    for name, of_features in zip(found.names, counts, strict=True):
        summaries = [[_summary(c, photos) for c in of_choice] for of_choice in of_features]
        scores += _scores(name, summaries, scored, photos)
        class_iou.append([summary.iou for summary in summaries[0]])
    labels = tuple(of.label for of in groups)
    findings = Findings(found.names, labels, tuple(scores), np.array(class_iou), counts[0][0][0].labelled)
    for title, cells in tables(findings):
        table = Table(*cells[0], title=title, padding=0)
        for line in cells[1:]:
            table.add_row(*line)
        console.print(table)
    console.print(f"points per class {drawing.points}, repeats {drawing.repeats}, seed {drawing.seed}")
    unseen = int(np.count_nonzero(findings.labelled == 0))
    console.print(f"{unseen} of {len(photos.names)} classes of {photos.called} are in no label")
    return findings


def _summary(counts: SegmentationCounts, photos: Labelled) -> Summary:
    return counts.summary(photos.names, photos.vocabulary, photos.definitions)


def _scores(
    features: str, summaries: Sequence[Sequence[Summary]], scored: Sequence[Pixels], photos: Labelled
) -> list[Score]:
    """All, base, novel classes and the background where all pixels count; where only novel ones do, these."""
    scores = []
    for pixels, of_repeats in zip(scored, summaries, strict=True):
        everything = tuple(s.mean_iou for s in of_repeats)
        if not pixels.competing.all():
            scores.append(Score(features, f"{pixels.name} only", pixels.name, everything))
            continue
        scores.append(Score(features, pixels.name, "all", everything))
        for of in photos.groups:
            for i, group in enumerate(("base", "novel")):
                values = tuple(of.base_novel(s)[i] for s in of_repeats)
                scores.append(Score(features, pixels.name, of.name(group), values))
        if photos.vocabulary.background in photos.names:
            background = tuple(s.background_iou for s in of_repeats)
            scores.append(Score(features, pixels.name, "background", background))
    return scores


def tables(found: Findings) -> list[TitledTable]:
    """A table of the kinds of features for each definition of base and novel classes, mean ± standard error in percent.

    "gap" is base minus novel, draw by draw.
    """
    miou = {(s.features, s.pixels, s.classes): s.miou for s in found.scores}
    made = []
    for label in found.labels or ("",):
        base, novel = f"base {label}".rstrip(), f"novel {label}".rstrip()
        columns = {"all": ("all", "all"), "base": ("all", base), "novel": ("all", novel), "gap": ("gap", "")}
        columns |= {"novel only": (f"{novel} only", novel), "background": ("all", "background")}
        header, cells = ["features"], []
        for features in found.features:
            line = {}
            for head, (pixels, classes) in columns.items():
                values = miou.get((features, pixels, classes))
                if head == "gap" and "novel" in line:
                    pairs = zip(miou[features, "all", base], miou[features, "all", novel], strict=True)
                    values = tuple(x - y for x, y in pairs)
                if values is not None and (of := estimate(values)) is not None:
                    line[head] = percent(of, "+" if head == "gap" else "")
            cells.append([features, *line.values()])
            header = ["features", *line]
        made.append(TitledTable(f"base and novel {label}" if label else "mIoU %", [header, *cells]))
    return made
