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
import os
from collections.abc import Callable, Sequence
from concurrent import futures
from pathlib import Path
from typing import NamedTuple

import jax
import numpy as np
from jaxtyping import Bool, Float32
from rich.table import Table

from data_pipelines import transforms
from data_pipelines.examples import Source
from data_pipelines.prepared import is_prepared
from data_pipelines.sources import SourceConfig, open_source
from larvseg_jax.config import network_sections
from larvseg_jax.console import console, stage, track
from larvseg_jax.errors import UserError
from larvseg_jax.evaluation.metrics import SegmentationCounts
from larvseg_jax.oracle.cosines import Drawing, PixelFeatures, label_map
from larvseg_jax.trained import Trained, load_trained
from larvseg_jax.vocabulary import IGNORE_LABEL, LabelSet, Vocabulary
from larvseg_jax.vocabulary.base_novel import BaseNovel
from larvseg_jax.vocabulary.class_lists import class_list

DEFINITIONS = ("processed", "split")
"""Base and novel classes of ADE20K: as in the released training, and as in the paper's printed columns."""

_MOST_THREADS = 8  # photos under way; the device takes one at a time

Embed = Callable[[np.ndarray], np.ndarray]
"""(H, W, 3) normalised photo -> (h, w, d) float32 unit patch features."""


class Pixels(NamedTuple):
    """Which pixels are scored: those of the classes that compete."""

    name: str
    competing: Bool[np.ndarray, " n"]


def count(
    embed: Embed,
    source: Source,
    scale: tuple[int, int],
    drawing: Drawing,
    scored: Sequence[Pixels],
    limit: int = 0,
) -> list[list[SegmentationCounts]]:
    """Counts of every choice of pixels and every repeat, over the photos of a source.

    Args:
      embed: the network.
      source: photos with masks; columns are those of `competing`.
      scale: (long side, short side) limits at test scale, pixels; aspect ratio kept.
      drawing: which pixels lend their features.
      scored: which pixels count, and which classes compete.
      limit: only the first so many photos; 0 = all.

    Raises:
      UserError: features that are not finite, with the photo's id.
    """

    def of_photo(index: int) -> list[list[SegmentationCounts]]:
        example = source[index]
        image = transforms.eval_transform(example["image"], scale)
        label = transforms.resize_label(example["label"], image.shape[:2])
        patches = embed(image)
        if not np.isfinite(patches).all():
            raise UserError(f"features of photo {example['id']!r} are not finite: the weights have diverged")
        features = PixelFeatures.of(patches, label.shape)
        shown = [int(c) for c in np.unique(label) if c != IGNORE_LABEL]
        counts: list[list[SegmentationCounts]] = [[] for _ in scored]
        for repeat in range(drawing.repeats):
            drawn = {column: drawing.pixels(label, column, repeat, index) for column in shown}
            for of_choice, (_, competing) in zip(counts, scored, strict=True):
                prediction = label_map(features, drawn, competing, example["label"].shape)
                counted = np.append(competing, False)[example["label"]]  # the last one is for IGNORE_LABEL, -1
                truth = np.where(counted, example["label"], np.int32(IGNORE_LABEL))
                of_choice.append(SegmentationCounts.zeros(len(competing)).add(prediction, truth))
        return counts

    total = min(limit or len(source), len(source))
    sums = [[SegmentationCounts.zeros(len(p.competing)) for _ in range(drawing.repeats)] for p in scored]
    with futures.ThreadPoolExecutor(min(_MOST_THREADS, len(os.sched_getaffinity(0)))) as pool:
        for counts in track(pool.map(of_photo, range(total)), total, "oracle test"):
            sums = [[a + b for a, b in zip(*both, strict=True)] for both in zip(sums, counts, strict=True)]
    return sums


class Score(NamedTuple):
    """Mean IoU of some classes as a fraction of one, for each repeat."""

    pixels: str
    classes: str
    miou: tuple[float, ...]


@dataclasses.dataclass(frozen=True)
class Photos:
    """The photos of an oracle test.

    Attributes:
      data: prepared data set or data folder with masks, relative to the data root.
      class_list: its class list.
      split: which of its photos.
      data_root: where the data is; None: where the run's config says.
      limit: only the first so many photos; 0 = all.
    """

    data: str
    class_list: str
    split: str = "val"
    data_root: str | None = None
    limit: int = 0


def oracle_test(
    path: Path, photos: Photos, drawing: Drawing, *, step: int | None = None, novel_only: bool = False
) -> list[Score]:
    """Runs the oracle test on a checkpoint and prints its table: mean and standard deviation over the repeats.

    Args:
      path: folder of the run or of a checkpoint, or an exported file.
      photos: which photos.
      drawing: which pixels lend their features.
      step: which checkpoint; the newest by default.
      novel_only: also score with the base classes left out.
    """
    classes = class_list(photos.class_list)
    ade = photos.class_list.startswith("ade20k")
    definitions = tuple(map(classes.base_novel, DEFINITIONS)) if ade else ()
    if novel_only and not definitions:
        raise UserError(f"--novel_only: {classes.key} has no novel classes: use ade20k_150 or ade20k_full_847")
    with stage("checkpoint"):
        trained = load_trained(path, step)
        console.print(f"  step {trained.step} of {path}")
    vocabulary = Vocabulary(classes.ids)
    root = trained.experiment().data_root if photos.data_root is None else Path(photos.data_root)
    source = _open(root, photos, vocabulary.label_set())
    scored = [Pixels("all", np.ones(len(classes), bool))]
    if novel_only:
        for of in definitions:
            scored.append(Pixels(f"novel {of.label}", np.array([name not in of.base for name in classes.ids])))
    counts = count(make_embed(trained), source, trained.windows.scale, drawing, scored, photos.limit)
    scores = _scores(counts, scored, vocabulary, definitions)
    console.print(_table(scores, drawing))
    unseen = int(np.count_nonzero(counts[0][0].labelled == 0))
    console.print(f"{unseen} of {len(classes)} classes of {classes.key} are in no label")
    return scores


def make_embed(trained: Trained) -> Embed:
    """The network up to its unit patch features, on one device.

    A photo is filled up with zeros (the mean colour) to whole patches, no further: attention would see the
    rest. So every patch grid is a program of its own, compiled when first met; photos of a few aspect ratios
    have a few dozen.
    """
    embed, patch = jax.jit(trained.method.embed), network_sections(trained.settings)[1].patch_size

    def embed_photo(image: Float32[np.ndarray, "height width 3"]) -> Float32[np.ndarray, "h w d"]:
        missing = [(0, -side % patch) for side in image.shape[:2]]
        return np.asarray(embed(trained.params, np.pad(image, [*missing, (0, 0)])[None])[0])

    return embed_photo


def _open(root: Path, photos: Photos, label_set: LabelSet) -> Source:
    data = photos.data
    folder = root / data
    if not folder.is_dir():
        raise UserError(f"--data={data}: {folder} does not exist: point --data_root at the folder that holds it")
    prepared = is_prepared(folder)
    location = SourceConfig(tfds=data if prepared else "", folder="" if prepared else data, split=photos.split)
    return open_source(location, root, label_set, masks=True, tags=False)


def _scores(
    counts: Sequence[Sequence[SegmentationCounts]],
    scored: Sequence[Pixels],
    vocabulary: Vocabulary,
    definitions: Sequence[BaseNovel],
) -> list[Score]:
    """All, base and novel classes where all pixels count; where only novel ones do, these."""
    scores = []
    for pixels, of_repeats in zip(scored, counts, strict=True):
        summaries = [c.summary(vocabulary.classes, vocabulary, definitions) for c in of_repeats]
        everything = tuple(s.mean_iou for s in summaries)
        if not pixels.competing.all():
            scores.append(Score(f"{pixels.name} only", pixels.name, everything))
            continue
        scores.append(Score(pixels.name, "all", everything))
        for label in (s.label for s in definitions):
            for i, group in enumerate(("base", "novel")):
                values = tuple(s.base_novel_iou[label][i] for s in summaries)
                scores.append(Score(pixels.name, f"{group} {label}", values))
    return scores


def _table(scores: Sequence[Score], drawing: Drawing) -> Table:
    """Percent; the standard deviation is that of one repeat (n - 1)."""
    title = f"oracle test: pixels per class {drawing.points}, repeats {drawing.repeats}, seed {drawing.seed}"
    table = Table("pixels scored", "mean over classes", "mIoU %", "std", title=title)
    for score in scores:
        values = 100 * np.array(score.miou)
        spread = f"{values.std(ddof=1):.2f}" if len(values) > 1 else ""
        table.add_row(score.pixels, score.classes, f"{values.mean():.2f}", spread)
    return table
