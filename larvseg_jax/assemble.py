"""From the description of a run to its parts: method, streams, state, compiled step, evaluations."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from typing import Any

import jax
import optax
from jax.sharding import Mesh, NamedSharding

from data_pipelines.sources import open_source
from data_pipelines.streams import HostBatch, Stream, iterate, open_stream, recorded, step_batches
from larvseg_jax import stored_features
from larvseg_jax.config import Experiment
from larvseg_jax.console import console
from larvseg_jax.devices.mesh import WHOLE, make_mesh, padded_rows
from larvseg_jax.devices.sharding import state_shardings
from larvseg_jax.evaluation.evaluator import Evaluator
from larvseg_jax.evaluation.novel_offset import with_novel_offset
from larvseg_jax.methods.method import Batch, Method, Metrics, StreamTask, Task
from larvseg_jax.options import names
from larvseg_jax.stored_features import data_facts, first_block, streams_of
from larvseg_jax.training import batches, state
from larvseg_jax.training.batches import BatchPlacer
from larvseg_jax.training.optimizer import make_optimizer
from larvseg_jax.training.state import SEED_DTYPE, TrainState, seed_array
from larvseg_jax.training.step import TrainStep, make_train_step


def mesh_of(run: Experiment) -> Mesh:
    """The mesh over all devices that the run asks for; UserError if there is none."""
    return make_mesh(run.mesh.data, run.mesh.model)


def make_method(run: Experiment, mesh: Mesh) -> Method:
    """The method of a run, on a mesh."""
    streams = {
        name: StreamTask(run.catalogue.label_set(run.streams[name]), stream.view, stream.loss, stream.batch_size)
        for name, stream in streams_of(run).items()
    }
    names = run.vocabulary.classes
    rows = padded_rows(len(names), mesh)
    return run.method.make(Task(rows, run.vit, streams, mesh, names, run.optimizer.frozen, first_block(run)))


def open_streams(run: Experiment) -> dict[str, Stream]:
    """Opens and checks the source of every stream of a run: photos, or features of them."""
    if run.features is not None:
        return stored_features.open_streams(run)
    return {
        name: open_stream(stream, run.data_root, run.catalogue.label_set(stream), run.max_megapixels)
        for name, stream in run.streams.items()
    }


def data_settings(run: Experiment, streams: Mapping[str, Stream]) -> dict[str, Any]:
    """What the batch of step i is a function of: a run may only be resumed with the same."""
    facts: dict[str, Any] = {"seed": run.seed}
    for name, stream in streams.items():
        options = run.settings["streams"][name]
        kept = {option: value for option, value in options.items() if option not in names(type(run.streams[name].loss))}
        kept = recorded(kept)
        facts[f"streams.{name}"] = {**kept, "pictures": len(stream.source), **data_facts(run, name)}
    if run.vocabulary.aliases:  # older checkpoints have no such entry
        facts["vocabulary.aliases"] = run.vocabulary.aliases
    return facts


def host_batches(run: Experiment, streams: Mapping[str, Stream], start: int) -> Iterator[dict[str, HostBatch]]:
    """Host batches of the steps start, start + 1, ...: the data order is a function of seed and step alone."""
    dataset = step_batches(
        streams,
        seed=run.seed,
        total_steps=run.total_steps,
        process_index=jax.process_index(),
        process_count=jax.process_count(),
        replace=run.data.on_error == "replace",
    )
    return iterate(dataset, start, run.data_threads)


def batch_placer(run: Experiment, mesh: Mesh) -> BatchPlacer:
    """Puts host batches on the mesh."""
    return BatchPlacer(streams_of(run), mesh, run.batch_padding)


def abstract_batch(run: Experiment, mesh: Mesh) -> dict[str, dict[str, jax.ShapeDtypeStruct]]:
    """Shapes, dtypes and shardings of a step's batches on the mesh."""
    return batches.abstract_batch(streams_of(run), mesh, run.batch_padding)


def optimizer_of(run: Experiment) -> optax.GradientTransformation:
    """The optimizer with its schedule."""
    return make_optimizer(run.optimizer, run.total_steps)


def state_layout(run: Experiment, mesh: Mesh, method: Method | None = None) -> TrainState:
    """Shapes, dtypes and shardings of a run's state, for restoring into and for compiling."""
    method = method or make_method(run, mesh)
    return state.state_layout(method, optimizer_of(run), seed=run.seed, mesh=mesh, rules=run.mesh.sharding)


def fresh_state(run: Experiment, mesh: Mesh, method: Method | None = None) -> TrainState:
    """A state of no steps, made where it will live."""
    method = method or make_method(run, mesh)
    return state.initial_state(method, optimizer_of(run), seed=run.seed, mesh=mesh, rules=run.mesh.sharding)


def lower_step(run: Experiment, mesh: Mesh, layout: TrainState, method: Method | None = None) -> jax.stages.Lowered:
    """The train step lowered for its devices: state in and out with the same layout, its memory reused.

    Its third argument is the seed (`seeded`), so that runs with other seeds find the same program compiled.
    """
    method, frozen = method or make_method(run, mesh), run.optimizer.frozen

    def train_step(state: TrainState, batch: Batch, seed: jax.Array) -> tuple[TrainState, Metrics]:
        return make_train_step(method, optimizer_of(run), seed=seed, frozen=frozen)(state, batch)

    shardings = state_shardings(layout, mesh, run.mesh.sharding), None
    seed = jax.ShapeDtypeStruct((), SEED_DTYPE, sharding=NamedSharding(mesh, WHOLE))
    with jax.set_mesh(mesh):  # so that the functions of devices/in_step.py split
        jitted = jax.jit(train_step, donate_argnums=0, out_shardings=shardings, compiler_options=compiler_options(mesh))
        return jitted.lower(layout, abstract_batch(run, mesh), seed)


def compiler_options(mesh: Mesh) -> dict[str, int]:
    """Options of XLA for a step over these devices."""
    device = mesh.devices.flat[0]
    if device.platform == "gpu":
        # XLA would join products of the same weights, those of two streams, by copying their activations side by side.
        return {"xla_gpu_dot_merger_threshold_mb": 0}
    if device.device_kind == "TPU7x":
        # XLA joins more operations than fit into half of the 64 MiB of vector memory, its own limit, and then fails.
        return {"xla_tpu_scoped_vmem_limit_kib": 48 * 1024}
    return {}


def seeded(run: Experiment, mesh: Mesh, compiled: Callable[..., Any]) -> TrainStep:
    """The compiled `lower_step` with the seed of a run: a function of state and batch."""
    seed = jax.make_array_from_callback((), NamedSharding(mesh, WHOLE), lambda _: seed_array(run.seed))
    return lambda state, batch: compiled(state, batch, seed)


def make_evaluators(run: Experiment, mesh: Mesh, method: Method | None = None) -> dict[str, Evaluator]:
    """The evaluations of a run, by name; their photos are opened and checked."""
    method = method or make_method(run, mesh)
    evaluators = {}
    for name, config in run.evals.items():
        label_set = run.catalogue.label_set(config, evaluation=True)
        source = open_source(config.source, run.data_root, label_set, "masks", run.max_megapixels)
        definitions = run.catalogue.definitions(config.class_list, config.base_novel)
        scorer = with_novel_offset(method.scorer(label_set), label_set.names, run.vocabulary, config.novel_offset)
        evaluators[name] = Evaluator(config, source, label_set, run.vocabulary, definitions, scorer, mesh)
    return evaluators


def begin_at_features(run: Experiment, evaluators: Mapping[str, Evaluator]) -> None:
    """Lets evaluations begin at the features that the run has of them; for the method of `make_method`."""
    if run.features is None:
        return
    for name, evaluator in evaluators.items():
        evaluator.stored, story = stored_features.open_evaluation(run, name, evaluator.photos)
        console.print(f"  evaluation {name}: from {story}")
