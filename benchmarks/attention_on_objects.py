"""Does the attention of a novel class lie on its objects? Measured on the photos of a run's first evaluation.

    python -m benchmarks.attention_on_objects --run=runs/quickstart

For every photo with a mask of the class: the mean attention inside the mask and outside of it (0 to 1; a map that knows
nothing has the same inside and outside), whether the most attended pixel lies on the object (pointing game), and the
share of the 5 % most attended ones that do; chance is the share of the photo that the object fills. Means over the
photos of the class; of a photo's novel classes the two largest are looked at, as in report.html. For all checkpoints of
a run, with what goes into the bank: bank_purity.py.
"""

from __future__ import annotations

import argparse
import dataclasses
from pathlib import Path

import jax
import numpy as np
from jax.sharding import Mesh
from jaxtyping import PyTree
from rich.table import Table

from larvseg_jax import assemble
from larvseg_jax.cli import fail
from larvseg_jax.config import Experiment
from larvseg_jax.console import console, printable
from larvseg_jax.devices.mesh import make_mesh
from larvseg_jax.errors import UserError
from larvseg_jax.evaluation.evaluator import Evaluator
from larvseg_jax.evaluation.metrics import Summary
from larvseg_jax.methods.method import Method, StreamTask, Task
from larvseg_jax.report.attention import OnPhoto, by_class
from larvseg_jax.report.cards import GalleryItem
from larvseg_jax.report.gallery import make_gallery
from larvseg_jax.trained import load_trained


@dataclasses.dataclass(frozen=True)
class Looked:
    """What a run makes of its first evaluation's photos; `novel` classes by name."""

    summary: Summary
    novel: frozenset[str]
    photos: list[GalleryItem]


@dataclasses.dataclass(frozen=True)
class Opened:
    """A checkpoint of a run with what looks at it: the method as it was trained, and the first evaluation."""

    run: Experiment
    mesh: Mesh
    method: Method
    params: PyTree
    memory: PyTree
    evaluator: Evaluator


def open_checkpoint(folder: Path, step: int | None = None, data_root: str | None = None) -> Opened:
    """A checkpoint of a run (None: the newest), on one device.

    Raises:
      UserError: there is no such run or checkpoint, or its data is not where its config says.
    """
    mesh = make_mesh(1, 1, jax.devices()[:1])
    trained = load_trained(folder, step, memory=True, mesh=mesh)
    run = trained.experiment(data_root=data_root)
    streams = {  # the method of `trained` has none, and attends to nothing
        name: StreamTask(run.catalogue.label_set(stream), stream.view, stream.loss, stream.batch_size)
        for name, stream in run.streams.items()
    }
    classes = len(run.vocabulary.classes)
    method = run.method.make(Task(classes, run.vit, streams, mesh))
    evaluator = next(iter(assemble.make_evaluators(run, mesh, method).values()))
    return Opened(run, mesh, method, trained.params, trained.memory, evaluator)


def look(folder: Path, step: int | None = None, data_root: str | None = None) -> Looked:
    """`look_at` a checkpoint; UserError as `open_checkpoint`."""
    return look_at(open_checkpoint(folder, step, data_root))


def look_at(opened: Opened) -> Looked:
    """Evaluates a checkpoint and keeps prediction and attention maps of every photo."""
    method, mesh, evaluator, vocabulary = opened.method, opened.mesh, opened.evaluator, opened.run.vocabulary
    evaluator.keep = range(evaluator.photos)
    summary, label_maps, _ = evaluator(opened.params, opened.memory)
    gallery = make_gallery(method, mesh, opened.params, opened.memory, evaluator, label_maps, vocabulary)
    return Looked(summary, frozenset(vocabulary.novel), gallery)


def cells_of(on: OnPhoto) -> tuple[str, ...]:
    """Means as numbers of a table."""
    shares = (f"{100 * x:.1f}" for x in (on.point, on.purity, on.area))
    return f"{on.inside:.3f}", f"{on.outside:.3f}", *shares


def main() -> None:
    """Prints the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--run", type=Path, required=True, help="folder of the run")
    parser.add_argument("--step", type=int, help="which checkpoint; the newest by default")
    parser.add_argument("--data_root", help="where the data is, if not where the config says")
    given = parser.parse_args()
    try:
        looked = look(given.run, given.step, given.data_root)
    except UserError as error:
        fail(error)
    classes = by_class(looked.photos, looked.summary.names, looked.novel)
    if not classes:
        fail(f"{given.run} has no attention maps of novel classes: give a run of LarvSeg")
    console.print(looked.summary.text())
    columns = "inside", "outside", "point on object %", "most attended on object %", "object's area %"
    table = Table("novel class", "photos", *columns, "IoU %")
    for name, (photos, on) in classes.items():
        iou = looked.summary.iou[looked.summary.names.index(name)]
        table.add_row(printable(name), str(photos), *cells_of(on), f"{100 * iou:.1f}")
    table.add_row("mean", "", *cells_of(OnPhoto(*np.mean([on for _, on in classes.values()], 0).tolist())), "")
    console.print(table)


if __name__ == "__main__":
    main()
