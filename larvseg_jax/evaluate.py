"""Evaluation of a checkpoint on its own, without training."""

from __future__ import annotations

from pathlib import Path

import ml_collections
import numpy as np
from rich.table import Table

from larvseg_jax import assemble
from larvseg_jax.console import console, printable, stage
from larvseg_jax.devices.mesh import make_mesh
from larvseg_jax.evaluation.metrics import Summary
from larvseg_jax.provenance import versions
from larvseg_jax.trained import load_trained
from larvseg_jax.training.agreement import check_same_everywhere


def evaluate_checkpoint(
    path: Path,
    step: int | None = None,
    data_root: str | None = None,
    config: ml_collections.ConfigDict | None = None,
) -> dict[str, Summary]:
    """Scores a checkpoint of a run and prints the table of its classes, for every evaluation of the config.

    Args:
      path: folder of the run or of a checkpoint, or an exported file.
      step: which checkpoint; the newest by default.
      data_root: where the data is, if not where the config says.
      config: how to evaluate, if not as in training; must have the same classes in the same order.
    """
    mesh = make_mesh(data=-1, model=1)  # not the training's: this may be another machine
    with stage("checkpoint"):
        trained = load_trained(path, step, mesh=mesh)
        run = trained.experiment(config, data_root)
        console.print(f"  step {trained.step} of {path}")
    kept = {name: value for name, value in run.settings.items() if name != "data_root"}  # may differ between hosts
    check_same_everywhere("config", {**kept, "step": trained.step, "versions": versions()})
    summaries = {}
    for name, evaluator in assemble.make_evaluators(run, mesh, trained.method).items():
        summaries[name] = summary = evaluator(trained.params, trained.memory).summary
        console.print(class_table(summary, "per class" if len(run.evals) == 1 else name))
        console.print(summary.text())
    return summaries


def class_table(summary: Summary, title: str) -> Table:
    """IoU and accuracy of every class that was labelled or predicted, best first."""
    table = Table("class", "group", "IoU %", "accuracy %", "pixels", title=title)
    for i in np.argsort(-np.nan_to_num(summary.iou, nan=-1.0), kind="stable"):
        if not np.isnan(summary.iou[i]):
            scores = [f"{100 * x[i]:.2f}" for x in (summary.iou, summary.acc)]
            table.add_row(printable(summary.names[i]), summary.groups[i], *scores, f"{summary.labelled[i]:,}")
    return table
