"""Classes taught without training: IoU against number of photos, with masks, with one click in each, with tags only.

    python -m benchmarks.teach --run=runs/voc/x --features=features/voc224 [--draws=5] [--photos=600]

The novel classes are taken out of a run's head and taught anew, all of them, from photos of a split with masks; then
the run's first evaluation is repeated, from its cached features (docs/features.md), at every third pixel of every third
row. The photos of a class are drawn among those whose masks have it; a click is a pixel of the class, drawn too. Draw i
has seed i; of a draw the 5 photos are among the 20. The first line has what the run itself had learnt of the classes.
"""

from __future__ import annotations

import argparse
import dataclasses
import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Bool, Int32

from data_pipelines.examples import Source
from data_pipelines.sources import open_source
from larvseg_jax import assemble, stored_features
from larvseg_jax.cli import fail
from larvseg_jax.config import Experiment, network_sections
from larvseg_jax.devices.mesh import make_mesh
from larvseg_jax.errors import UserError
from larvseg_jax.evaluation.metrics import SegmentationCounts, Summary
from larvseg_jax.evaluation.sliding_window import mosaic
from larvseg_jax.methods.method import Task, as_linear
from larvseg_jax.models.partial import StoredTokens
from larvseg_jax.report.statistics import estimate, percent
from larvseg_jax.teach.join import with_class, without_class
from larvseg_jax.teach.patches import PatchReader, PhotoPatches
from larvseg_jax.teach.vectors import of_pixels, of_tags
from larvseg_jax.trained import Trained, load_trained
from larvseg_jax.vocabulary import LabelSet

WAYS = ("masks", "one click each", "tags only")
COUNTS = (1, 5, 20)


STEP = 3  # from one scored pixel to the next
Label = Int32[np.ndarray, "_h _w"]


class Opened(NamedTuple):
    """A run without its novel classes, those, the photos they are taught from, and what the result is scored on.

    Attributes:
      untaught: the model without its novel classes.
      novel: their names.
      source: photos with masks to teach from.
      label_set: the classes that compete once they are taught.
      scored: photos of the evaluation, and their labels at the pixels that are scored.
      learnt: the scores of the run as it was.
    """

    untaught: Trained
    novel: tuple[str, ...]
    source: Source
    label_set: LabelSet
    scored: list[tuple[PhotoPatches, Label]]
    learnt: Summary


def open_run(folder: Path, features: Path, split: str, photos: int) -> Opened:
    """Opens a run and scores what it had learnt; UserError if it, its data or its features are not there."""
    trained = load_trained(folder, mesh=make_mesh(1, 1, jax.devices()[:1]))
    untaught = trained
    for name in trained.vocabulary.novel:
        untaught = without_class(untaught, name)
    width = network_sections(trained.settings)[1].width
    taught = with_novel(untaught, trained.vocabulary.novel, np.eye(width, dtype=np.float32))  # for its classes alone
    run = taught.experiment()
    config = next(iter(run.evals.values()))
    label_set = run.catalogue.label_set(config, evaluation=True)
    source = open_source(
        dataclasses.replace(config.source, split=split), run.data_root, label_set, masks=True, tags=False
    )
    scored = scored_photos(trained, dataclasses.replace(run, features=features), photos)
    learnt = score(trained, trained.experiment().catalogue.label_set(config, evaluation=True), scored)
    return Opened(untaught, trained.vocabulary.novel, source, label_set, scored, learnt)


def scored_photos(trained: Trained, run: Experiment, photos: int) -> list[tuple[PhotoPatches, Label]]:
    """The first photos of a run's first evaluation, from its features, with what classes they show there."""
    name, config = next(iter(run.evals.items()))
    mesh = make_mesh(1, 1, jax.devices()[:1])
    task = Task(len(run.vocabulary.classes), run.vit, {}, mesh, first_block=stored_features.first_block(run))
    method = run.method.make(task)
    evaluators = assemble.make_evaluators(run, mesh, method)
    assemble.begin_at_features(run, evaluators)
    stored, source = evaluators[name].stored, evaluators[name].source
    if stored is None:
        raise UserError(f"{run.features} has no features of {name}: make them with python -m larvseg_jax.features")
    embed = jax.jit(lambda tokens: method.embed(trained.params, tokens))
    found = []
    for number in range(min(photos, len(source))):
        windows, label = stored.windows(number)[1], source[number]["label"]
        tokens = StoredTokens(**{key: jnp.stack([window[key] for window in windows]) for key in windows[0]})
        patches = np.asarray(embed(tokens))
        stitching = config.windows.stitching(
            patches.shape[1:3], config.windows.test_size(label.shape), label.shape, run.vit.patch_size
        )
        features = mosaic(patches, stitching.window_rows)
        photo = PhotoPatches(features, stitching.rows[::STEP], stitching.columns[::STEP])
        found.append((photo, np.ascontiguousarray(label[::STEP, ::STEP])))
    return found


def score(model: Trained, label_set: LabelSet, scored: Sequence[tuple[PhotoPatches, Label]]) -> Summary:
    """The scores of a model of which these are the photos' patches; `label_set` has the labels' names, in any order."""
    scorer = as_linear(model.method.scorer(label_set), label_set)
    classes = scorer.vectors(model.params, model.memory)
    scale = jax.jit(scorer.scale)
    counts = SegmentationCounts.zeros(len(label_set))
    for photo, label in scored:
        logits = np.asarray(scale(photo.features, classes)) @ np.asarray(classes.vectors).T
        across = np.einsum("yp,pqn->yqn", photo.rows, logits, optimize=True)
        labels = np.einsum("xq,yqn->yxn", photo.columns, across, optimize=True).argmax(-1).astype(np.int32)
        counts = counts.add(labels, label)
    return counts.summary(label_set.names, model.vocabulary)


def with_novel(untaught: Trained, names: Sequence[str], vectors: Sequence[np.ndarray] | np.ndarray) -> Trained:
    """The model with a class of each name."""
    taught = untaught
    for name, vector in zip(names, vectors, strict=False):
        taught = with_class(taught, name, vector)
    return taught


def photos_showing(source: Source, columns: Sequence[int], order: Sequence[int], least: int) -> dict[int, list[int]]:
    """Column -> numbers of the photos whose masks have it, in the order given, until every column has `least`."""
    found: dict[int, list[int]] = {column: [] for column in columns}
    for number in order:
        there = np.unique(source[number]["label"])
        for column in found:
            if column in there:
                found[column].append(number)
        if all(len(numbers) >= least for numbers in found.values()):
            break
    return found


def click(shown: Bool[np.ndarray, "h w"], rng: np.random.Generator) -> Bool[np.ndarray, "h w"]:
    """One of the pixels that show a class, drawn."""
    clicked = np.zeros_like(shown)
    clicked.flat[rng.choice(np.flatnonzero(shown))] = True
    return clicked


def measure(
    opened: Opened, seed: int, read: PatchReader, cache: dict[int, PhotoPatches]
) -> Mapping[tuple[str, int], Summary]:
    """(way, photos) -> the scores of the model that was taught so, of one draw."""
    rng = np.random.default_rng(seed)
    columns = [opened.label_set.names.index(name) for name in opened.novel]
    order = rng.permutation(len(opened.source)).tolist()
    chosen = photos_showing(opened.source, columns, order, max(COUNTS))
    vectors: dict[tuple[str, int], list[np.ndarray]] = {}
    for column in columns:
        numbers = chosen[column][: max(COUNTS)]
        masks = [np.asarray(opened.source[number]["label"] == column) for number in numbers]
        clicks = [click(mask, rng) for mask in masks]
        for number in numbers:
            if number not in cache:
                cache[number] = read(opened.source[number]["image"])
        seen = [cache[number] for number in numbers]
        for n in COUNTS:
            vectors.setdefault((WAYS[0], n), []).append(of_pixels(seen[:n], masks[:n]))
            vectors.setdefault((WAYS[1], n), []).append(of_pixels(seen[:n], clicks[:n]))
            if n > 1:
                vectors.setdefault((WAYS[2], n), []).append(of_tags(seen[:n]))
    return {
        key: score(with_novel(opened.untaught, opened.novel, of_classes), opened.label_set, opened.scored)
        for key, of_classes in vectors.items()
    }


def tables(opened: Opened, found: Sequence[Mapping[tuple[str, int], Summary]]) -> str:
    """Means over the novel classes, then IoU by class from the most photos; mean and standard error over the draws."""

    def cell(way: str, n: int, name: str) -> str:
        values = [
            draw[way, n].novel_iou if not name else float(draw[way, n].iou[draw[way, n].names.index(name)])
            for draw in found
            if (way, n) in draw
        ]
        return percent(of) if (of := estimate(values)) else "–"

    learnt, most = opened.learnt, max(COUNTS)
    lines = [f"| given | {' | '.join(f'photos: {n}' for n in COUNTS)} | base, photos: {most} |"]
    lines += ["|---" * (len(COUNTS) + 2) + "|"]
    lines.append(f"| learnt by the run | | | {100 * learnt.novel_iou:.2f} | {100 * learnt.base_iou:.2f} |")
    for way in WAYS:
        base = estimate([draw[way, most].base_iou for draw in found])
        lines.append(f"| {way} | {' | '.join(cell(way, n, '') for n in COUNTS)} | {percent(base) if base else ''} |")
    lines += ["", f"| class, photos: {most} | learnt | {' | '.join(WAYS)} |", "|---" * (len(WAYS) + 2) + "|"]
    for name in opened.novel:
        iou = 100 * learnt.iou[learnt.names.index(name)]
        lines.append(f"| {name} | {iou:.2f} | {' | '.join(cell(way, most, name) for way in WAYS)} |")
    return "\n".join(lines)


def main() -> None:
    """Prints the tables."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--run", type=Path, required=True, help="folder of the run")
    parser.add_argument("--features", type=Path, required=True, help="folder with the features of its evaluation")
    parser.add_argument("--split", default="train", help="the photos with masks that classes are taught from")
    parser.add_argument("--draws", type=int, default=5)
    parser.add_argument("--photos", type=int, default=600, help="of the evaluation, the first ones")
    given = parser.parse_args()
    try:
        opened = open_run(given.run, given.features, given.split, given.photos)
        read, cache = PatchReader(opened.untaught), dict[int, PhotoPatches]()
        found = [measure(opened, seed, read, cache) for seed in range(given.draws)]
    except UserError as error:
        fail(error)
    kind = jax.devices()[0].device_kind
    print(f"{os.cpu_count()} {kind} cores, jax {jax.__version__}, {len(opened.scored)} photos")
    print(tables(opened, found))


if __name__ == "__main__":
    main()
