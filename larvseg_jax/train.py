"""Training, from a config to a report. Reads from top to bottom."""

from __future__ import annotations

import functools
import json
from collections.abc import Callable, Collection, Iterator, Mapping
from typing import NoReturn, TypeVar

import jax

from data_pipelines.streams import HostBatch, Stream
from larvseg_jax import assemble
from larvseg_jax.config import Experiment
from larvseg_jax.console import console, stage
from larvseg_jax.devices.host_memory import keep_freed_pages
from larvseg_jax.devices.memory import state_size
from larvseg_jax.devices.processes import Stopping, from_all, is_first_process, stop_requested
from larvseg_jax.disk import write_text
from larvseg_jax.diverged import explain
from larvseg_jax.errors import DataError, Stopped, UserError
from larvseg_jax.evaluation.evaluator import Evaluation, Evaluator
from larvseg_jax.methods.method import Batch, Watched
from larvseg_jax.models.attention_choice import attention_line
from larvseg_jax.provenance import versions
from larvseg_jax.report.gallery import check_figures, choose_photos
from larvseg_jax.report.report import machine_facts
from larvseg_jax.run_report import command, report_run, warn
from larvseg_jax.start import first_state
from larvseg_jax.stored_features import check_weights
from larvseg_jax.training.agreement import check_same_everywhere
from larvseg_jax.training.finite import Diverged, check_state
from larvseg_jax.training.frozen import describe_parameters
from larvseg_jax.training.history import WHERE, note
from larvseg_jax.training.lock import locked
from larvseg_jax.training.lookahead import looked_ahead
from larvseg_jax.training.optimizer import learning_rate
from larvseg_jax.training.recorder import Recorder
from larvseg_jax.training.replaced import Replacements, TooManyUnusable
from larvseg_jax.training.state import TrainState
from larvseg_jax.training.step import TrainStep
from larvseg_jax.training.telemetry import Meter
from larvseg_jax.weights.checkpoint import Checkpoints
from larvseg_jax.weights.record import Record
from larvseg_jax.weights.saves import Saves

T = TypeVar("T")
Evaluators = Mapping[str, Evaluator]
Evaluations = dict[str, Evaluation]


def train(run: Experiment, profiled: tuple[int, int] | None = None, accept: Collection[str] = ()) -> TrainState:
    """Trains a run to its last step, or goes on where it was stopped; returns the final state.

    `profiled` = (START, STOP) traces the steps from START to STOP (training/profiling.py). `accept` names what may
    differ from the checkpoint that it goes on from: "data". Raises Stopped after SIGTERM or Ctrl-C, the state saved.
    """
    # Of the paths only this one may differ between hosts.
    kept = {name: value for name, value in run.settings.items() if name != "data_root"}
    check_same_everywhere("config", {**kept, "--accept": sorted(accept), "versions": versions()})
    with locked(run.workdir), stop_requested() as stopping:
        return _train(run, profiled, accept, stopping)


def _train(
    run: Experiment, profiled: tuple[int, int] | None, accept: Collection[str], stopping: Stopping
) -> TrainState:
    timings: dict[str, float] = {}
    with stage("devices", timings):
        mesh = assemble.mesh_of(run)
        console.print(f"  {jax.device_count()} x {jax.devices()[0].device_kind}, mesh {dict(mesh.shape)}")
    with stage("model", timings):
        method = assemble.make_method(run, mesh)
        layout = assemble.state_layout(run, mesh, method)
        pictures = sum(stream.batch_size for stream in run.streams.values())
        meter = Meter(pictures, sum(method.flops().values()), run.vit.dtype, mesh)
        console.print(f"  {describe_parameters(run.optimizer.frozen, layout.params)}, {meter}")
        if attention := attention_line(run.vit, mesh.devices.flat[0]):
            console.print(f"  {attention}")
        console.print(state_size(layout))
    check_not_stopped(stopping)
    with stage("data", timings):
        streams = assemble.open_streams(run)
        evaluators = assemble.make_evaluators(run, mesh, method)
        assemble.begin_at_features(run, evaluators)
        for name, stream in streams.items():
            console.print(f"  {name}: {len(stream.source)} pictures, {len(stream.label_set)} classes")
        for evaluator in evaluators.values():
            novel = [i for i, name in enumerate(evaluator.label_set.names) if name in run.vocabulary.novel]
            evaluator.keep = choose_photos(evaluator.source, evaluator.photos, novel, run.gallery)
            check_figures(method, layout.params, layout.memory, evaluator)
    check_not_stopped(stopping)
    record = Record.of(run.settings, run.vocabulary.classes, assemble.data_settings(run, streams), layout)
    check_same_everywhere("data", {**record.data, "vocabulary.classes": record.classes})
    evaluations: Evaluations = {}
    with Checkpoints(run.workdir, run.checkpoint.keep_last, run.checkpoint.best) as checkpoints:
        first = functools.partial(first_state, run, mesh, method, checkpoints, record, accept)
        with stage("weights", timings):
            state, story = first()
            check_weights(run, state.params)
            for line in story:
                console.print(f"  {line}")
            where = {name: fact for name, fact in machine_facts().items() if name in WHERE} | {"command": command()}
            note(run.workdir, "resumed" if int(state.step) else "started", int(state.step), story, **where)
        if is_first_process():
            write_text(run.workdir / "config.json", json.dumps(record.settings, indent=2) + "\n")
        check_not_stopped(stopping, int(state.step))
        if int(state.step) < run.total_steps:
            with stage("compilation", timings):
                compiled = keep_freed_pages(assemble.lower_step(run, mesh, state, method).compile())
                train_step = assemble.seeded(run, mesh, compiled)
                from_all("compiled step", "")  # a host that compiles for long is waited for here: the step would not
                host, replaced = host_batches(run, streams, int(state.step))
                if jax.process_count() > 1:
                    host = looked_ahead(host, stopping.foresee)
                batches = map(assemble.batch_placer(run, mesh), host)
            with stage("training", timings):
                rate = learning_rate(run.optimizer, run.total_steps)
                start, total, every = int(state.step), run.total_steps, run.log_every
                seen = {"symptoms": method.symptoms} if isinstance(method, Watched) else {}
                recorder = Recorder(run.workdir, start, total, every, rate, meter, profiled, replaced, **seen)
                saves = Saves(checkpoints, record, stopping.asked_for)
                try:
                    state, evaluations = run_steps(
                        run, train_step, state, batches, evaluators, saves, recorder, stopping
                    )
                except Diverged as error:
                    raise explain(run, mesh, method, streams, train_step, lambda: first()[0], record, error) from error
        elif profiled:
            console.print("nothing is traced: the run has all its steps; give --config.workdir another folder")
    saved = int(state.step) if checkpoints.settle() else max(checkpoints.steps(), default=0)
    if saved < run.total_steps:
        lost = f"; step {int(state.step)} could not be saved" if saved < int(state.step) else ""
        check_not_stopped(stopping, saved, lost, asked=True)
    with stage("report", timings):
        evaluations = evaluations or evaluate_all(evaluators, state)
        counts = {name: len(stream.source) for name, stream in streams.items()}
        path = report_run(run, method, mesh, state, evaluators, evaluations, timings, counts)
    console.print(f"report: {path.absolute()}")
    return state


def check_not_stopped(stopping: Stopping, step: int = 0, lost: str = "", *, asked: bool = False) -> None:
    """Raises Stopped if the run was asked to stop, and says where the same command begins and what is `lost`."""
    if asked or stopping.signal is not None:
        none = "begins again" if lost else "begins again; no step was taken yet"
        where = f"goes on from step {step}, which is saved" if step else none
        if stopping.foreseen is not None:
            raise UserError(f"{stopping.foreseen}; the same command {where}{lost}{_without(stopping.foreseen)}")
        raise Stopped(f"stopped: the same command {where}{lost}", stopping.exit_code())


def host_batches(
    run: Experiment, streams: Mapping[str, Stream], start: int
) -> tuple[Iterator[dict[str, HostBatch]], Callable[[int], Mapping[str, float]]]:
    """The host batches from step `start` on, and what was replaced in them up to a step (Replacements.counts)."""
    batches = assemble.host_batches(run, streams, start)
    if run.data.on_error == "stop":
        return batches, lambda step: {}
    replacements = Replacements(run.workdir, streams, run.data.most_replaced, start)
    return replacements.watched(batches), replacements.counts


def run_steps(
    run: Experiment,
    train_step: TrainStep,
    state: TrainState,
    batches: Iterator[Batch],
    evaluators: Evaluators,
    saves: Saves,
    recorder: Recorder,
    stopping: Stopping,
) -> tuple[TrainState, Evaluations]:
    """The loop. A checkpoint and an evaluation of step n describe the weights after n steps.

    Returns the state and the evaluations of the last step, {} if it was stopped before. Raises Diverged when a loss or
    the state is not finite, UserError when there is no batch or a photo of an evaluation cannot be used; neither is
    saved, but the state before the latter is.
    """
    start = int(state.step)
    evaluations: Evaluations = {}
    with recorder:
        for step in range(start, run.total_steps + 1):
            # Keep this order: evaluate, save, and only then touch the next batch.
            final, stop = step == run.total_steps, stopping(step)
            due = {name: e for name, e in evaluators.items() if final or step % e.config.every == 0}
            evaluations = {}
            if step > start and (due or stop or final or step % run.checkpoint.every == 0 or saves.again()):
                recorder.catch_up()  # a state that has diverged must not become a checkpoint
                with recorder.paused():
                    check_state(state, step)
                    try:
                        evaluations = evaluate_all(due, state, recorder)
                        warn(run.workdir, step, run.total_steps, {name: e.summary for name, e in evaluations.items()})
                    except DataError as error:
                        fail_after_save(error, recorder, saves, state, step)
                    # Every evaluated state is saved, so that the best one is really kept.
                    (saves.insist if final else saves)(state, step, best_score(run, evaluations))
            if final or stop:
                break
            with jax.transfer_guard("disallow"), recorder.step(step):
                batch = next_batch(batches, recorder, saves, state, step)
                state, metrics = train_step(state, batch)
                recorder.begun(step + 1, metrics)
    return state, evaluations


def next_batch(batches: Iterator[T], recorder: Recorder, saves: Saves, state: TrainState, step: int) -> T:
    """The next batch; if there is none (a photo that cannot be read), the state is saved before the error goes on."""
    try:
        return recorder.next(batches)
    except UserError as error:
        fail_after_save(error, recorder, saves, state, step, _without(error))


def _without(error: UserError) -> str:
    return ", or with --config.data.on_error=replace without such photos" if isinstance(error, DataError) else ""


def fail_after_save(
    error: UserError, recorder: Recorder, saves: Saves, state: TrainState, step: int, advice: str = ""
) -> NoReturn:
    """Saves the state before an error of the data goes on."""
    if jax.process_count() > 1 and not isinstance(error, TooManyUnusable):
        raise error  # the others are not here to save their part
    with jax.transfer_guard("allow"):
        recorder.catch_up()
        saves(state, step, None)
        if not saves.written():
            raise error
    raise UserError(f"{error}; all steps so far are saved: the same command goes on from here{advice}") from error


def evaluate_all(evaluators: Evaluators, state: TrainState, recorder: Recorder | None = None) -> Evaluations:
    """The evaluations of a state, printed and logged."""
    evaluations = {}
    for name, evaluator in evaluators.items():
        evaluations[name] = evaluation = evaluator(state.params, state.memory)
        if recorder is not None:
            recorder.scored(int(state.step), name, evaluation.scalars())
            title = f"{name}: " if len(evaluators) > 1 else ""
            console.print(f"step {int(state.step)}: {title}{evaluation.text()}")
    return evaluations


def best_score(run: Experiment, evaluations: Evaluations) -> float | None:
    """The score that says which checkpoint is the best: of the first evaluation by name; None if that was not made."""
    first = next(iter(run.evals), None)
    return None if first not in evaluations else evaluations[first].summary.scalars()[run.checkpoint.best]
