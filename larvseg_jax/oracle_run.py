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

import os
from collections.abc import Callable, Sequence
from concurrent import futures
from pathlib import Path
from typing import NamedTuple, cast

import jax
import ml_collections
import numpy as np
from jaxtyping import Array, Bool, Float, Float32, PyTree
from rich.table import Table

from data_pipelines import transforms
from data_pipelines.examples import Source
from data_pipelines.sources import open_source
from larvseg_jax.checkpoint import Checkpoints
from larvseg_jax.class_lists import class_list
from larvseg_jax.config import Experiment, SourceConfig, from_config
from larvseg_jax.errors import UserError
from larvseg_jax.metrics import SegmentationCounts, Split
from larvseg_jax.models.segmenter import Segmenter, make_model
from larvseg_jax.oracle_prediction import Drawing, PixelFeatures, predict
from larvseg_jax.progress import console, stage, track
from larvseg_jax.sharding import make_mesh
from larvseg_jax.train_state import state_layout
from larvseg_jax.vocabulary import IGNORE_LABEL, LabelSet, Vocabulary

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
                prediction = predict(features, drawn, competing, example["label"].shape)
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


def oracle_test(
    workdir: Path,
    data: str,
    list_key: str,
    drawing: Drawing,
    *,
    split: str = "val",
    step: int | None = None,
    data_root: str | None = None,
    limit: int = 0,
    novel_only: bool = False,
) -> list[Score]:
    """Runs the oracle test on a checkpoint and prints its table: mean and standard deviation over the repeats.

    Args:
      workdir: folder of the run.
      data: prepared data set or data folder with masks, relative to the data root.
      list_key: its class list.
      drawing: which pixels lend their features.
      split: which of its photos.
      step: which checkpoint; the newest by default.
      data_root: where the data is, if not where the run's config says.
      limit: only the first so many photos; 0 = all.
      novel_only: also score with the base classes left out.
    """
    classes = class_list(list_key)
    splits = tuple(map(classes.split, DEFINITIONS)) if list_key.startswith("ade20k") else ()
    if novel_only and not splits:
        raise UserError(f"--novel_only: {list_key} has no novel classes: use ade20k_150 or ade20k_full_847")
    run, model, params = _restore(workdir, step)
    vocabulary = Vocabulary(classes.ids, base=(), novel=())
    root = run.data_root if data_root is None else Path(data_root)
    source = _open(root, data, split, vocabulary.label_set())
    scored = [Pixels("all", np.ones(len(classes), bool))]
    if novel_only:
        scored += [Pixels(f"novel {s.label}", np.array([name not in s.base for name in classes.ids])) for s in splits]
    embed = make_embed(model, params, run.vit.patch_size)
    counts = count(embed, source, run.eval.scale, drawing, scored, limit)
    scores = _scores(counts, scored, vocabulary, splits)
    console.print(_table(scores, drawing))
    unseen = int(np.count_nonzero(counts[0][0].labelled == 0))
    console.print(f"{unseen} of {len(classes)} classes of {list_key} are in no label")
    return scores


def make_embed(model: Segmenter, params: PyTree, patch_size: int) -> Embed:
    """The network up to its unit patch features, on one device.

    A photo is filled up with zeros (the mean colour) to whole patches, no further: attention would see the
    rest. So every patch grid is a program of its own, compiled when first met; photos of a few aspect ratios
    have a few dozen.
    """

    @jax.jit
    def embed(params: PyTree, images: Float[Array, "1 height width 3"]) -> Float[Array, "1 h w d"]:
        patches = model.apply({"params": params}, images, method=lambda m, x: m.head.patches(m.backbone(x)))
        return cast(Array, patches)

    def embed_photo(image: Float32[np.ndarray, "height width 3"]) -> Float32[np.ndarray, "h w d"]:
        missing = [(0, -side % patch_size) for side in image.shape[:2]]
        return np.asarray(embed(params, np.pad(image, [*missing, (0, 0)])[None])[0])

    return embed_photo


def _restore(workdir: Path, step: int | None) -> tuple[Experiment, Segmenter, PyTree]:
    """The run as its checkpoint describes it, its network, and the parameters on one device."""
    if not (workdir / "checkpoints").is_dir():
        raise UserError(f"{workdir} has no folder checkpoints/: give the folder of a run (--run=runs/<name>)")
    with Checkpoints(workdir, read_only=True) as checkpoints:
        chosen = checkpoints.choose(step)
        run = from_config(ml_collections.ConfigDict(checkpoints.record(chosen).settings))
        mesh = make_mesh(1, 1, jax.devices()[:1])
        with stage(f"checkpoint of step {chosen}"):
            state = checkpoints.restore(chosen, state_layout(run, mesh))
    return run, make_model(run, mesh), state.params


def _open(root: Path, data: str, split: str, label_set: LabelSet) -> Source:
    folder = root / data
    if not folder.is_dir():
        raise UserError(f"--data={data}: {folder} does not exist: point --data_root at the folder that holds it")
    prepared = (folder / "dataset_info.json").is_file()
    location = SourceConfig(data if prepared else "", "" if prepared else data, class_folders="", split=split)
    return open_source(location, root, label_set, masks=True, tags=False)


def _scores(
    counts: Sequence[Sequence[SegmentationCounts]],
    scored: Sequence[Pixels],
    vocabulary: Vocabulary,
    splits: Sequence[Split],
) -> list[Score]:
    """All, base and novel classes where all pixels count; where only novel ones do, these."""
    scores = []
    for pixels, of_repeats in zip(scored, counts, strict=True):
        summaries = [c.summary(vocabulary.classes, vocabulary, splits) for c in of_repeats]
        everything = tuple(s.mean_iou for s in summaries)
        if not pixels.competing.all():
            scores.append(Score(f"{pixels.name} only", pixels.name, everything))
            continue
        scores.append(Score(pixels.name, "all", everything))
        for label in (s.label for s in splits):
            for i, group in enumerate(("base", "novel")):
                values = tuple(s.split_iou[label][i] for s in summaries)
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
