"""Training, from a config to a report. Reads from top to bottom."""

from __future__ import annotations

import dataclasses
import functools
import json
import sys
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path

import jax
from jax.sharding import Mesh

from larvseg_jax import assemble
from larvseg_jax.config import Experiment
from larvseg_jax.console import console, stage
from larvseg_jax.devices.memory import array_table
from larvseg_jax.devices.processes import is_first_process, stop_requested
from larvseg_jax.evaluation.evaluator import Evaluation, Evaluator
from larvseg_jax.methods.method import Batch, Method
from larvseg_jax.report.gallery import check_figures, choose_photos, make_gallery
from larvseg_jax.report.metric_log import read_history
from larvseg_jax.report.report import EvaluationReport, write_report
from larvseg_jax.training.optimizer import learning_rate
from larvseg_jax.training.recorder import Recorder
from larvseg_jax.training.state import TrainState
from larvseg_jax.training.step import TrainStep
from larvseg_jax.training.telemetry import Meter
from larvseg_jax.weights.checkpoint import Checkpoints
from larvseg_jax.weights.pretrained import load_pretrained
from larvseg_jax.weights.record import Record

Evaluators = Mapping[str, Evaluator]
Evaluations = dict[str, Evaluation]


def train(run: Experiment, profiled: tuple[int, int] | None = None) -> TrainState:
    """Trains a run to its last step, or goes on where it was stopped; returns the final state.

    `profiled` = (START, STOP) traces the steps from START to STOP (training/profiling.py).
    """
    timings: dict[str, float] = {}
    with stage("devices", timings):
        mesh = assemble.mesh_of(run)
        console.print(f"  {jax.device_count()} x {jax.devices()[0].device_kind}, mesh {dict(mesh.shape)}")
    with stage("model", timings):
        method = assemble.make_method(run, mesh)
        layout = assemble.state_layout(run, mesh, method)
        pictures = sum(stream.batch_size for stream in run.streams.values())
        meter = Meter(pictures, sum(method.flops().values()), run.vit.dtype, mesh)
        console.print(f"  {sum(x.size for x in jax.tree.leaves(layout.params)):,} parameters, {meter}")
        console.print(array_table(layout))
    with stage("data", timings):
        streams = assemble.open_streams(run)
        evaluators = assemble.make_evaluators(run, mesh, method)
        for name, stream in streams.items():
            console.print(f"  {name}: {len(stream.source)} pictures, {len(stream.label_set)} classes")
        for evaluator in evaluators.values():
            evaluator.keep = choose_photos(evaluator, run.vocabulary.novel, run.gallery)
            check_figures(method, layout.params, layout.memory, evaluator)
    record = Record.of(run.settings, run.vocabulary.classes, assemble.data_settings(run, streams), layout)
    with Checkpoints(run.workdir, run.checkpoint.keep_last, run.checkpoint.best) as checkpoints:
        with stage("weights", timings):
            state = first_state(run, mesh, method, checkpoints, record)
        if is_first_process():
            (run.workdir / "config.json").write_text(json.dumps(record.settings, indent=2) + "\n")
        with stage("compilation", timings):
            train_step = assemble.lower_step(run, mesh, state, method).compile()
            batches = map(assemble.batch_placer(run, mesh), assemble.host_batches(run, streams, int(state.step)))
        with stage("training", timings):
            rate = learning_rate(run.optimizer, run.total_steps)
            recorder = Recorder(run.workdir, int(state.step), run.total_steps, run.log_every, rate, meter, profiled)
            save = functools.partial(checkpoints.save, record)
            state, evaluations = run_steps(run, train_step, state, batches, evaluators, save, recorder)
    if int(state.step) == run.total_steps:
        with stage("report", timings):
            evaluations = evaluations or evaluate_all(evaluators, state)
            path = report_run(run, method, mesh, state, evaluators, evaluations, timings)
        console.print(f"report: {path.absolute()}")
    else:
        console.print(f"stopped and saved at step {int(state.step)} of {run.total_steps}: the same command goes on")
    return state


def first_state(run: Experiment, mesh: Mesh, method: Method, checkpoints: Checkpoints, record: Record) -> TrainState:
    """Where the weights come from: this run's own checkpoint; else what `pretrained` names; else nowhere."""
    restored = checkpoints.restore_latest(assemble.state_layout(run, mesh, method), record)
    if restored is not None:
        console.print(f"  resumed at step {int(restored.step)}")
        return restored
    fresh = assemble.fresh_state(run, mesh, method)
    if not run.pretrained:
        console.print("  from scratch")
        return fresh
    params, report = load_pretrained(run.pretrained, fresh.params, run.vit.stored_grid, run.vocabulary.classes)
    console.print(f"  {report}", markup=False)
    return dataclasses.replace(fresh, params=params)


def run_steps(
    run: Experiment,
    train_step: TrainStep,
    state: TrainState,
    batches: Iterator[Batch],
    evaluators: Evaluators,
    save: Callable[[TrainState, int, float | None], None],
    recorder: Recorder,
) -> tuple[TrainState, Evaluations]:
    """The loop. A checkpoint and an evaluation of step n describe the weights after n steps.

    Returns the state and the evaluations of the last step, {} if it was stopped before.
    """
    start = int(state.step)
    evaluations: Evaluations = {}
    with recorder, stop_requested() as stopping:
        for step in range(start, run.total_steps + 1):
            # Keep this order: evaluate, save, and only then touch the next batch.
            final, stop = step == run.total_steps, stopping(step)
            due = {name: e for name, e in evaluators.items() if final or step % e.config.every == 0}
            evaluations = {}
            if step > start and (due or stop or final or step % run.checkpoint.every == 0):
                recorder.catch_up()  # a state that has diverged must not become a checkpoint
                with recorder.paused():
                    evaluations = evaluate_all(due, state, recorder)
                    # Every evaluated state is saved, so that the best one is really kept.
                    save(state, step, best_score(run, evaluations))
            if final or stop:
                break
            with jax.transfer_guard("disallow"), recorder.step(step):
                state, metrics = train_step(state, recorder.next(batches))
                recorder.begun(step + 1, metrics)
    return state, evaluations


def evaluate_all(evaluators: Evaluators, state: TrainState, recorder: Recorder | None = None) -> Evaluations:
    """The evaluations of a state, printed and logged."""
    evaluations = {}
    for name, evaluator in evaluators.items():
        evaluations[name] = evaluation = evaluator(state.params, state.memory)
        if recorder is not None:
            recorder.scored(int(state.step), name, evaluation.summary.scalars())
            title = f"{name}: " if len(evaluators) > 1 else ""
            console.print(f"step {int(state.step)}: {title}{evaluation.summary.text()}")
    return evaluations


def best_score(run: Experiment, evaluations: Evaluations) -> float | None:
    """The score that says which checkpoint is the best: of the first evaluation by name; None if that was not made."""
    first = next(iter(run.evals), None)
    return None if first not in evaluations else evaluations[first].summary.scalars()[run.checkpoint.best]


def report_run(
    run: Experiment,
    method: Method,
    mesh: Mesh,
    state: TrainState,
    evaluators: Evaluators,
    evaluations: Evaluations,
    timings: Mapping[str, float],
) -> Path:
    """Writes report.html into the run's folder and returns its path; all processes compute, the first one writes."""
    parts = [
        EvaluationReport(
            name,
            evaluation.summary,
            make_gallery(
                method, mesh, state.params, state.memory, evaluators[name], evaluation.label_maps, run.vocabulary
            ),
        )
        for name, evaluation in evaluations.items()
    ]
    if not is_first_process():
        return run.workdir
    return write_report(
        run.workdir,
        title=run.name,
        evaluations=parts,
        history=read_history(run.workdir),
        facts={
            "command": " ".join(["python", *sys.argv]),
            "steps": f"{int(state.step)} of {run.total_steps}",
            "seed": str(run.seed),
            "pictures per step": ", ".join(f"{s.batch_size} {name}" for name, s in run.streams.items()),
        },
        config=run.settings,
        timings=timings,
    )
