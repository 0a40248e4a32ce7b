"""Says what goes wrong in a training, in the terminal and in the run's history."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from larvseg_jax.console import console
from larvseg_jax.devices.processes import is_first_process
from larvseg_jax.evaluation.metrics import Summary
from larvseg_jax.report.metric_log import read_history
from larvseg_jax.report.symptoms import Training, symptoms
from larvseg_jax.training.history import note


def warn(workdir: Path, step: int, total: int, summaries: Mapping[str, Summary]) -> None:
    """A line for everything that evaluations of a step, by their names, and the log show to be wrong."""
    if not summaries or not is_first_process():
        return
    history = read_history(workdir)
    for name, summary in summaries.items():
        found = symptoms(summary, Training(name, step, total, history))
        for text in found:
            console.print(f"warning: {text}")
        if found:
            note(workdir, "warning", step, found, evaluation=name)
