"""A benchmark of a trained run: its flags, what it opens, and the one line for what is wrong."""

from __future__ import annotations

import argparse
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Generic, NamedTuple, TypeVar, cast

from data_pipelines.examples import Source
from data_pipelines.sources import open_source
from larvseg_jax.cli import fail
from larvseg_jax.errors import UserError
from larvseg_jax.evaluation.config import EvalConfig
from larvseg_jax.trained import Trained, load_trained
from larvseg_jax.vocabulary import LabelSet
from larvseg_jax.weights.places import check_model

M = TypeVar("M")

Measure = Callable[[Path, int, int | None, str | None], object]
"""(folder of a run or of a checkpoint, how many photos, step or None for the newest, data_root or None)."""


class Opened(NamedTuple, Generic[M]):
    """A trained run, its method, its first evaluation, and that one's classes and photos with masks."""

    trained: Trained
    method: M
    evaluation: EvalConfig
    label_set: LabelSet
    source: Source


def opened(folder: Path, step: int | None, data_root: str | None, kind: type[M], what: str) -> Opened[M]:
    """A run of a method of one kind; UserError, "... is no run of `what`", for any other."""
    check_model(folder, step)
    trained = load_trained(folder, step, memory=True)
    if not isinstance(trained.method, kind):
        raise UserError(f"{folder} is no run of {what}")
    run = trained.experiment(None, data_root)
    evaluation = next(iter(run.evals.values()))
    label_set = run.catalogue.label_set(evaluation, evaluation=True)
    source = open_source(evaluation.source, run.data_root, label_set, "masks")
    return Opened(trained, cast(M, trained.method), evaluation, label_set, source)


def measure_run(measure: Measure, page: str | None, count: int, arguments: Sequence[str] | None) -> None:
    """Measures what the command line names; `page`: the program's help, `count`: of photos, if none is given."""
    parser = argparse.ArgumentParser(description=page, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--run", required=True, type=Path, help="folder of a run or of a checkpoint")
    parser.add_argument("--step", type=int, help="of the run; its newest by default")
    parser.add_argument("--count", type=int, default=count, help="photos")
    parser.add_argument("--data_root", help="where the data is, if not where the config says")
    given = parser.parse_args(arguments)
    try:
        measure(given.run, given.count, given.step, given.data_root)
    except UserError as error:
        fail(str(error))
