"""Training, from a config to a report. Reads from top to bottom."""

from __future__ import annotations

import dataclasses
import json
import math
from collections.abc import Iterator

import jax
from jax.sharding import Mesh

from data_pipelines.streams import Batch as HostBatch
from data_pipelines.streams import iterate, step_batches
from larvseg_jax import data
from larvseg_jax.checkpoint import Checkpoints, Record
from larvseg_jax.config import Experiment
from larvseg_jax.distributed import is_first_process, stop_requested
from larvseg_jax.errors import UserError
from larvseg_jax.evaluator import Evaluation, Evaluator
from larvseg_jax.metric_log import MetricLog
from larvseg_jax.models.segmenter import make_model
from larvseg_jax.optimizer import learning_rate, make_optimizer
from larvseg_jax.pretrained import load_pretrained
from larvseg_jax.profiling import Profile
from larvseg_jax.progress import TrainProgress, console, stage
from larvseg_jax.run_report import report_run
from larvseg_jax.sharding import array_table, make_mesh, state_shardings
from larvseg_jax.telemetry import Clock, Meter
from larvseg_jax.train_state import TrainState, fresh_state, state_layout
from larvseg_jax.train_step import Batch, Metrics, TrainStep, make_train_step


def train(run: Experiment, profiled: tuple[int, int] | None = None) -> TrainState:
    """Trains a run to its last step, or goes on where it was stopped; returns the final state.

    `profiled` = (START, STOP) traces the steps from START to STOP (profiling.py).
    """
    timings: dict[str, float] = {}
    with stage("devices", timings):
        mesh = make_mesh(*run.mesh)
        console.print(f"  {jax.device_count()} x {jax.devices()[0].device_kind}, mesh {dict(mesh.shape)}")
    with stage("data", timings):
        streams = data.open_streams(run)
        place = data.BatchPlacer(run, mesh)
        evaluator = Evaluator(run, mesh)
        for name, stream in streams.items():
            console.print(f"  {name}: {len(stream.source)} pictures, {len(stream.label_set)} classes")
    with stage("model", timings):
        layout = state_layout(run, mesh)
        meter = Meter(run, mesh)
        console.print(f"  {sum(x.size for x in jax.tree.leaves(layout.params)):,} parameters, {meter}")
        console.print(array_table(layout))
    record = Record.of(run.settings, run.vocabulary.classes, data.data_settings(run, streams), layout)
    with Checkpoints(run.workdir, run.keep_last) as checkpoints:
        with stage("weights", timings):
            state = first_state(run, mesh, checkpoints, record)
        if is_first_process():
            (run.workdir / "config.json").write_text(json.dumps(record.settings, indent=2) + "\n")
        with stage("compilation", timings):
            batches = map(place, batches_from(run, streams, int(state.step)))
            train_step = lower_step(run, mesh, state).compile()
        with stage("training", timings):
            profile = Profile(run.workdir / "tensorboard", profiled)
            state, evaluation = run_steps(
                run, train_step, state, batches, evaluator, checkpoints, record, meter, profile
            )
    if int(state.step) == run.total_steps:
        with stage("report", timings):
            evaluation = evaluation or evaluator(state.params)
            path = report_run(run, mesh, state, evaluator, evaluation, timings)
        console.print(f"report: {path.absolute()}")
    else:
        console.print(f"stopped and saved at step {int(state.step)} of {run.total_steps}: the same command goes on")
    return state


def first_state(run: Experiment, mesh: Mesh, checkpoints: Checkpoints, record: Record) -> TrainState:
    """Where the weights come from: this run's own checkpoint; else what `pretrained` names; else nowhere."""
    restored = checkpoints.restore_latest(state_layout(run, mesh), record)
    if restored is not None:
        console.print(f"  resumed at step {int(restored.step)}")
        return restored
    fresh = fresh_state(run, mesh)
    if not run.pretrained:
        console.print("  from scratch")
        return fresh
    params, report = load_pretrained(run.pretrained, fresh.params, run.vit.stored_grid, run.vocabulary.classes)
    console.print(f"  {report}", markup=False)
    return dataclasses.replace(fresh, params=params)


def batches_from(run: Experiment, streams: dict[str, data.Stream], start: int) -> Iterator[dict[str, HostBatch]]:
    """Host batches of the steps start, start + 1, ...: the data order is a function of seed and step alone."""
    dataset = step_batches(
        streams,
        seed=run.seed,
        total_steps=run.total_steps,
        process_index=jax.process_index(),
        process_count=jax.process_count(),
    )
    return iterate(dataset, start, run.data_threads)


def run_steps(
    run: Experiment,
    train_step: TrainStep,
    state: TrainState,
    batches: Iterator[Batch],
    evaluator: Evaluator,
    checkpoints: Checkpoints,
    record: Record,
    meter: Meter,
    profile: Profile,
) -> tuple[TrainState, Evaluation | None]:
    """The loop. A checkpoint and an evaluation of step n describe the weights after n steps."""
    start = step = int(state.step)
    rate = learning_rate(run.optimizer, run.total_steps)
    metrics: Metrics = {}
    values: dict[str, float] = {}
    evaluation: Evaluation | None = None
    with (
        MetricLog(run.workdir, start) as log,
        TrainProgress(run.total_steps, start) as progress,
        Clock(step) as clock,
        profile,
        stop_requested() as stopping,
    ):
        while True:
            # Keep this order: log, evaluate, save, and only then touch the next batch.
            profile.end(step, metrics, clock)
            final, stop = step == run.total_steps, stopping(step)
            logs = step > start and (step % run.log_every == 0 or final)
            evaluates = step > start and (step % run.eval.every == 0 or final)
            # Every evaluated state is saved, so that the best one is really kept.
            saves = step > start and (step % run.checkpoint_every == 0 or evaluates or stop)
            if logs or saves:  # a state that has diverged must not become a checkpoint
                values = {name: float(value) for name, value in jax.device_get(metrics).items()}
                check_finite(values, step)
            logged: dict[str, float] = {}
            if logs:
                logged = values | {"learning_rate": float(rate(step - 1))} | meter.values(clock.read(step))
                log.write(step, "train", logged)
            progress.update(step, logged)
            evaluation = None
            if evaluates:
                with clock.paused():
                    evaluation = evaluator(state.params)
                log.write(step, "eval", evaluation.summary.scalars())
                console.print(f"step {step}: {evaluation.summary.text()}")
            if saves:
                with clock.paused():
                    checkpoints.save(state, record, step, evaluation.summary.mean_iou if evaluation else None)
            if final or stop:
                return state, evaluation
            profile.begin(step, metrics, clock)
            with jax.profiler.StepTraceAnnotation("train_step", step_num=step):
                state, metrics = train_step(state, clock.next(batches))
                clock.begun(metrics)
            step += 1


def lower_step(run: Experiment, mesh: Mesh, state: TrainState) -> jax.stages.Lowered:
    """The train step lowered for its devices: state in and out with the same layout, its memory reused."""
    step = make_train_step(
        make_model(run, mesh),
        make_optimizer(run.optimizer, run.total_steps),
        data.stream_losses(run, mesh),
        run.ca_classifier,
        seg_loss_mean=run.seg_loss_mean,
        seed=run.seed,
    )
    shardings = state_shardings(state, mesh, run.sharding), None
    with jax.set_mesh(mesh):  # so that sharding.py's functions inside the step split
        return jax.jit(step, donate_argnums=0, out_shardings=shardings).lower(state, data.abstract_batch(run, mesh))


def check_finite(metrics: dict[str, float], step: int) -> None:
    """Stops a run that has diverged; its last checkpoint stays as it is."""
    for name, value in metrics.items():
        if not math.isfinite(value):
            raise UserError(f"{name} is {value} at step {step}: lower optimizer.learning_rate, or look at the data")
