"""How well a class is taught without training: IoU against the number of photos, and of what is said of them.

    python -m benchmarks.teach --run=runs/x --classes=dog,cow,sheep --split=train

The run's classes that are to be taught, and those its evaluation leaves out, are taken off the model; then each is
taught (larvseg_jax/teach) from photos of the split with their masks: the whole mask, one click in it (a pixel drawn
among those of the class), or nothing but that the photos show it. All other classes of the model compete. Which photos
and which pixels is drawn anew --draws times, by (--seed, draw, class). Scores are of pixels, on the first --photos of
the run's first evaluation: the mean IoU of the taught classes and, behind it, of the run's base classes beside them;
mean and standard error over the draws, in percent. The first row has the base classes without the taught ones.
"""

from __future__ import annotations

import argparse
import dataclasses
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import numpy as np
from jaxtyping import Bool, Float32, Float64, Int32
from rich.table import Table

from data_pipelines.examples import Source
from data_pipelines.sources import open_source
from larvseg_jax.cli import fail
from larvseg_jax.console import console, track
from larvseg_jax.errors import UserError
from larvseg_jax.evaluation.metrics import SegmentationCounts, ratio
from larvseg_jax.oracle.photos import of_evaluation
from larvseg_jax.teach.join import without_class
from larvseg_jax.teach.lesson import class_vectors, of_tagged
from larvseg_jax.teach.patches import PatchReader, PhotoPatches
from larvseg_jax.teach.vectors import of_pixels
from larvseg_jax.trained import Trained, load_trained
from larvseg_jax.vocabulary import IGNORE_LABEL

KINDS = ("masks", "clicks", "tags")
LEAST = 0.02  # of a photo: a class that covers less is not taught from it


class Shown(NamedTuple):
    """A photo and where its classes are."""

    patches: PhotoPatches
    label: Int32[np.ndarray, "H W"]


@dataclasses.dataclass(frozen=True)
class Setting:
    """What is measured: numbers of photos, draws, and the seed of both."""

    numbers: tuple[int, ...]
    draws: int
    seed: int


def lessons(source: Source, column: int, most: int, rng: np.random.Generator) -> Iterator[int]:
    """Photos that show a class, in a random order, at most so many."""
    for number in rng.permutation(len(source)).tolist():
        label = source[number]["label"]
        if (label == column).mean() >= LEAST:
            yield number
            most -= 1
        if not most:
            return


def taught_vector(
    trained: Trained,
    kind: str,
    photos: list[PhotoPatches],
    masks: list[Bool[np.ndarray, "H W"]],
    rng: np.random.Generator,
) -> Float32[np.ndarray, " d"]:
    """The vector of a class from its photos."""
    if kind == "tags":
        return of_tagged(trained, photos)
    if kind == "clicks":
        masks = [one_of(mask, rng) for mask in masks]
    return of_pixels(photos, masks)


def one_of(mask: Bool[np.ndarray, "H W"], rng: np.random.Generator) -> Bool[np.ndarray, "H W"]:
    """One pixel of a mask."""
    found = np.zeros(mask.shape, bool)
    places = np.argwhere(mask)
    found[tuple(places[rng.integers(len(places))])] = True
    return found


def score(shown: list[Shown], vectors: Float32[np.ndarray, "n d"], labelled: int) -> Float64[np.ndarray, " labelled"]:
    """IoU of every class, NaN if it is nowhere; the highest of the standardised products, upsampled, wins a pixel.

    Classes that are `labelled` and have no vector, the last ones, do not compete.
    """
    counts = SegmentationCounts.zeros(labelled)
    for photo in shown:
        scores = photo.patches.features @ vectors.T
        scores = (scores - scores.mean(-1, keepdims=True)) / scores.std(-1, keepdims=True)
        maps = np.einsum("yp,pqn,xq->yxn", photo.patches.rows, scores, photo.patches.columns, optimize=True)
        counts = counts.add(maps.argmax(-1).astype(np.int32), photo.label)
    return ratio(counts.intersection, counts.predicted + counts.labelled - counts.intersection)


def measure(
    trained: Trained, classes: tuple[str, ...], split: str, photos: int, data_root: str | None, setting: Setting
) -> dict[tuple[str, int], list[tuple[float, float]]]:
    """(kind, number of photos) -> mean IoU of the taught and of the base classes at each draw; ("", 0): none taught.

    Raises:
      UserError: data or classes are missing.
    """
    run = trained.experiment(data_root=data_root)
    val = of_evaluation(run, photos)
    evaluation = run.evals[min(run.evals)]
    label_set = run.catalogue.label_set(dataclasses.replace(evaluation, rivals=""), evaluation=True)
    location = dataclasses.replace(evaluation.source, split=split)
    train = open_source(location, run.data_root, label_set, "masks")
    if missing := [name for name in classes if name not in val.names]:
        raise UserError(f"{missing[0]!r} is no class of {val.called}: it has {', '.join(val.names)}")
    ignored = set(run.vocabulary.ignore_in_eval)
    kept = tuple(name for name in val.names if name not in classes and name not in ignored)
    place = {name: row for row, name in enumerate((*kept, *classes))}
    columns = np.array([place.get(name, IGNORE_LABEL) for name in val.names] + [IGNORE_LABEL], np.int32)  # -1: the last
    for name in (*classes, *sorted(ignored)):
        if name in trained.vocabulary.classes:
            trained = without_class(trained, name)
    read, learnt = PatchReader(trained), class_vectors(trained, kept)
    shown = []
    for number in track(range(val.total), val.total, "photos to be scored"):
        example = val.source[number]
        shown.append(Shown(read(example["image"]), columns[example["label"]]))
    base = np.isin(kept, run.vocabulary.base)
    found = {("", 0): [(float("nan"), float(np.nanmean(score(shown, learnt, len(place))[: len(kept)][base])))]}
    for draw in track(range(setting.draws), setting.draws, "draws"):
        of_class = []
        for name in classes:
            rng = np.random.default_rng([setting.seed, draw, place[name]])
            numbers = lessons(train, val.names.index(name), max(setting.numbers), rng)
            examples = [train[number] for number in numbers]
            if len(examples) < max(setting.numbers):
                raise UserError(f"{split} has {len(examples)} photos of {name!r}: give --numbers up to that many")
            masks = [example["label"] == val.names.index(name) for example in examples]
            of_class.append(([read(example["image"]) for example in examples], masks, rng))
        for number in setting.numbers:
            for kind in KINDS:
                new = [
                    taught_vector(trained, kind, seen[:number], masks[:number], rng) for seen, masks, rng in of_class
                ]
                iou = score(shown, np.concatenate([learnt, new]), len(place))
                of_both = float(np.nanmean(iou[len(kept) :])), float(np.nanmean(iou[: len(kept)][base]))
                found.setdefault((kind, number), []).append(of_both)
    return found


def mean_and_error(values: Float64[np.ndarray, " draws"]) -> str:
    """The mean with the standard error over draws, such as 17.8 ± 0.3; of one draw the value alone."""
    if len(values) == 1:
        return f"{values[0]:.1f}"
    return f"{values.mean():.1f} ± {values.std(ddof=1) / len(values) ** 0.5:.1f}"


def main() -> None:
    """Prints the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--run", type=Path, required=True, help="folder of a run, or of a checkpoint")
    parser.add_argument("--classes", required=True, help="those that are taught, separated by commas")
    parser.add_argument("--split", required=True, help="of the evaluation's data: the photos they are taught from")
    parser.add_argument("--photos", type=int, default=200, help="that are scored")
    parser.add_argument("--numbers", default="1,5,20", help="of photos that teach a class")
    parser.add_argument("--draws", type=int, default=5)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--data_root", help="where the data is, if not where the config says")
    given = parser.parse_args()
    numbers = tuple(int(number) for number in given.numbers.split(","))
    try:
        trained = load_trained(given.run)
        classes = tuple(given.classes.split(","))
        setting = Setting(numbers, given.draws, given.seed)
        found = measure(trained, classes, given.split, given.photos, given.data_root, setting)
    except UserError as error:
        fail(error)
    table = Table("taught by", *(f"{number} photos: taught" for number in numbers), *(f"base, {n}" for n in numbers))
    table.add_row("nothing", *[""] * len(numbers), *[f"{100 * found['', 0][0][1]:.1f}"] * len(numbers))
    for kind in KINDS:
        values = [100 * np.array(found[kind, number]) for number in numbers]
        table.add_row(kind, *(mean_and_error(of[:, part]) for part in (0, 1) for of in values))
    console.print(table)


if __name__ == "__main__":
    main()
