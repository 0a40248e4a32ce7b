"""The report of a run: its history, its last evaluation, and what it sees."""

from __future__ import annotations

import sys
from collections.abc import Mapping
from pathlib import Path

from jax.sharding import Mesh

from larvseg_jax.config import Experiment
from larvseg_jax.distributed import is_first_process
from larvseg_jax.evaluator import Evaluation, Evaluator
from larvseg_jax.gallery import make_gallery
from larvseg_jax.metric_log import read_history
from larvseg_jax.report import write_report
from larvseg_jax.train_state import TrainState


def report_run(
    run: Experiment,
    mesh: Mesh,
    state: TrainState,
    evaluator: Evaluator,
    evaluation: Evaluation,
    timings: Mapping[str, float],
) -> Path:
    """Writes report.html into the run's folder and returns its path; all processes compute, the first one writes."""
    gallery = make_gallery(
        run, mesh, state, evaluator.source, evaluator.label_set, evaluator.settings, evaluation.label_maps
    )
    if not is_first_process():
        return run.workdir
    return write_report(
        run.workdir,
        title=run.name,
        summary=evaluation.summary,
        history=read_history(run.workdir),
        gallery=gallery,
        facts={
            "command": " ".join(["python", *sys.argv]),
            "steps": f"{int(state.step)} of {run.total_steps}",
            "seed": str(run.seed),
            "pictures per step": ", ".join(f"{s.batch_size} {name}" for name, s in run.streams.items()),
        },
        config=run.settings,
        timings=timings,
    )
