"""Evaluation of a checkpoint on its own, without training."""

from __future__ import annotations

from pathlib import Path

import ml_collections
import numpy as np
from rich.table import Table

from larvseg_jax.checkpoint import Checkpoints, check_same_vocabulary
from larvseg_jax.config import from_config
from larvseg_jax.errors import UserError
from larvseg_jax.evaluator import Evaluator
from larvseg_jax.metrics import Summary
from larvseg_jax.progress import console, stage
from larvseg_jax.sharding import make_mesh
from larvseg_jax.train_state import state_layout


def evaluate_checkpoint(
    workdir: Path,
    step: int | None = None,
    data_root: str | None = None,
    config: ml_collections.ConfigDict | None = None,
) -> Summary:
    """Scores a checkpoint of a run and prints the table of its classes.

    Args:
      workdir: folder of the run.
      step: which checkpoint; the newest by default.
      data_root: where the data is, if not where the config says.
      config: how to evaluate, if not as in training; must have the same classes in the same order.
    """
    if not (workdir / "checkpoints").is_dir():
        raise UserError(f"{workdir} has no folder checkpoints/: give the folder of a run (--run=runs/<name>)")
    with Checkpoints(workdir, read_only=True) as checkpoints:
        chosen = checkpoints.choose(step)
        record = checkpoints.record(chosen)
        settings = config or ml_collections.ConfigDict(record.settings)
        if data_root is not None:
            settings.data_root = data_root
        try:
            run = from_config(settings)
        except (AttributeError, KeyError, TypeError) as error:
            reason = " ".join(str(error).split())[:100]
            raise UserError(
                f"the config in {workdir} is of another version ({reason}): give one by --config"
            ) from error
        check_same_vocabulary(record, run.vocabulary.classes, workdir)
        mesh = make_mesh(data=-1, model=1)  # not the training's: this may be another machine
        with stage(f"checkpoint of step {chosen}"):
            state = checkpoints.restore(chosen, state_layout(run, mesh))
    summary = Evaluator(run, mesh)(state.params).summary
    console.print(class_table(summary))
    console.print(summary.text())
    return summary


def class_table(summary: Summary) -> Table:
    """IoU and accuracy of every class that was labelled or predicted, best first."""
    table = Table("class", "group", "IoU %", "accuracy %", "pixels", title="per class")
    for i in np.argsort(-np.nan_to_num(summary.iou, nan=-1.0), kind="stable"):
        if not np.isnan(summary.iou[i]):
            scores = [f"{100 * x[i]:.2f}" for x in (summary.iou, summary.acc)]
            table.add_row(summary.names[i], summary.groups[i], *scores, f"{summary.labelled[i]:,}")
    return table
