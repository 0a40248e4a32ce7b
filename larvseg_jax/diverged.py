"""A run that has diverged: which step it was, what it looked like, and a file to repeat it from.

A step is a function of the state before it, and that state is gone when its losses are read. So the steps since the
last checkpoint are taken again, each one looked at; the state before the first bad one is kept beside the run.
"""

from __future__ import annotations

import dataclasses
import json
import math
import shutil
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import optax
from jax.sharding import Mesh
from rich.table import Table

from data_pipelines.streams import HostBatch, Stream
from larvseg_jax import assemble
from larvseg_jax.config import Experiment, from_config
from larvseg_jax.console import console, stage
from larvseg_jax.devices.processes import is_first_process, wait_for_all
from larvseg_jax.devices.sharding import path_name
from larvseg_jax.disk import write_text
from larvseg_jax.errors import UserError
from larvseg_jax.methods.method import Method
from larvseg_jax.training.finite import Diverged, check_losses, check_state
from larvseg_jax.training.frozen import frozen_parts, gradient_of_moving
from larvseg_jax.training.state import TrainState
from larvseg_jax.training.step import TrainStep
from larvseg_jax.weights.checkpoint import Checkpoints
from larvseg_jax.weights.record import Record
from larvseg_jax.weights.saved_step import read_state

FOLDER = "diverged"
"""In the run's folder: the state before the step, and step_N.json."""


@dataclasses.dataclass(frozen=True)
class Anatomy:
    """One step, taken apart.

    Attributes:
      step: how many steps were done before it.
      losses: the loss and its parts.
      gradient_norms: layer -> L2 norm of its gradient; none of those that are frozen.
      examples: stream -> ids of the photos of its batch (of this process).
    """

    step: int
    losses: Mapping[str, float]
    gradient_norms: Mapping[str, float]
    examples: Mapping[str, list[str]]

    def show(self) -> None:
        """Prints it."""
        console.print(f"step {self.step + 1}: " + ", ".join(f"{k} {v:.6g}" for k, v in self.losses.items()))
        table = Table("layer", "norm of its gradient")
        for layer, norm in self.gradient_norms.items():
            table.add_row(layer, f"{norm:.4g}", style=None if math.isfinite(norm) else "bold red")
        console.print(table)
        for name, ids in self.examples.items():
            console.print(f"  {name}: {', '.join(ids)}")


def explain(
    run: Experiment,
    mesh: Mesh,
    method: Method,
    streams: Mapping[str, Stream],
    train_step: TrainStep,
    first: Callable[[], TrainState],
    record: Record,
    error: Diverged,
) -> UserError:
    """Finds the step at which a run diverged, shows it, and writes a file to repeat it from; what to tell the user.

    `first` gives the state that the run goes on from: that of its last checkpoint, or the one it began with.
    """
    with stage("looking for the step that diverged"):
        bad = _first_bad(run, mesh, streams, train_step, first(), error.step)
        if bad is None:
            return UserError(
                f"{error.what} at step {error.step}, but not when the same steps were taken again: it is this machine, "
                "or data that changed in between; the same command goes on from the last checkpoint"
            )
        state = first()
        for _, batch in _batches(run, mesh, streams, int(state.step), bad):
            state, _ = train_step(state, batch)
        anatomy = take_apart(run, mesh, method, streams, state)
    anatomy.show()
    folder = run.workdir / FOLDER
    if is_first_process():
        shutil.rmtree(folder, ignore_errors=True)  # of an earlier time: a step that is there would not be saved anew
    wait_for_all("cleared")
    with Checkpoints(folder, keep_last=1) as checkpoints:
        checkpoints.save(record, state, bad, None)
        repeatable = checkpoints.settle()
    file = folder / f"step_{bad + 1}.json"
    if is_first_process():
        said = dataclasses.asdict(anatomy) | {"settings": record.settings}
        write_text(file, json.dumps(said, indent=2, default=list) + "\n")
    wait_for_all("diverged")
    repeated = f"python -m larvseg_jax replay {file} repeats it" if repeatable else "which are listed above"
    return UserError(
        f"{error.what} at step {error.step}; the first bad step is {bad + 1}: lower optimizer.learning_rate, or look "
        f"at its photos ({repeated}); the last checkpoint is as it was"
    )


def replay(file: Path) -> None:
    """Repeats the step of a file that `explain` wrote, with the data as it is now. UserError if it is no such file."""
    try:
        said = json.loads(file.read_text(encoding="utf-8"))
        run, step = from_config(said["settings"]), said["step"]
        before = Anatomy(step, said["losses"], said["gradient_norms"], said["examples"])
    except OSError as error:
        raise UserError(
            f"{file} cannot be read ({error.strerror}): give the file that a diverged run has named"
        ) from None
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise UserError(
            f"{file} is no file of a diverged run ({type(error).__name__}): give the one it named"
        ) from error
    mesh = assemble.mesh_of(run)
    method = assemble.make_method(run, mesh)
    checkpoint = file.absolute().parent / "checkpoints" / str(step)  # Orbax takes no relative path
    state = read_state(checkpoint, assemble.state_layout(run, mesh, method))
    again = take_apart(run, mesh, method, assemble.open_streams(run), state)
    again.show()
    if again.examples != before.examples:
        console.print("  the photos are not those of then: the data has changed")
    same = all(_same(again.losses.get(name), value) for name, value in before.losses.items())
    console.print("the losses are those of then" if same else f"the losses differ from those of then: {before.losses}")


def take_apart(
    run: Experiment, mesh: Mesh, method: Method, streams: Mapping[str, Stream], state: TrainState
) -> Anatomy:
    """The losses and gradients of the step that follows a state."""
    step = int(state.step)
    host = next(assemble.host_batches(run, streams, step))
    batch = assemble.batch_placer(run, mesh)(host)

    @jax.jit
    def losses_and_norms(state: TrainState, batch: Any) -> tuple[Any, dict[str, jax.Array]]:
        key = jax.random.fold_in(jax.random.key(run.seed), state.step)
        gradient = gradient_of_moving(method, run.optimizer.frozen)
        (loss, (metrics, _)), grads = gradient(state.params, state.memory, batch, key)
        layers: dict[str, list[jax.Array]] = {}
        still = jax.tree.leaves(frozen_parts(run.optimizer.frozen, state.params))
        for (path, leaf), is_frozen in zip(jax.tree_util.tree_leaves_with_path(grads), still, strict=True):
            if not is_frozen:
                layers.setdefault("/".join(path_name(path).split("/")[:3]), []).append(leaf)
        return metrics | {"loss": loss}, {name: optax.tree.norm(leaves) for name, leaves in layers.items()}

    with jax.set_mesh(mesh):
        losses, norms = jax.device_get(losses_and_norms(state, batch))
    examples = {name: [str(i) for i in part["id"]] for name, part in host.items()}
    return Anatomy(step, _floats(losses), _floats(norms), examples)


def _first_bad(
    run: Experiment, mesh: Mesh, streams: Mapping[str, Stream], train_step: TrainStep, state: TrainState, last: int
) -> int | None:
    """The steps done before the first one whose losses or state are not finite; None if all are."""
    for step, batch in _batches(run, mesh, streams, int(state.step), last):
        state, metrics = train_step(state, batch)
        try:
            check_losses(_floats(jax.device_get(metrics)), step + 1)
            check_state(state, step + 1)
        except Diverged:
            return step
    return None


def _batches(
    run: Experiment, mesh: Mesh, streams: Mapping[str, Stream], start: int, stop: int
) -> Iterator[tuple[int, Any]]:
    """(step, its batch on the devices) for the steps from start to before stop."""
    host: Iterator[Mapping[str, HostBatch]] = assemble.host_batches(run, streams, start)
    return zip(range(start, stop), map(assemble.batch_placer(run, mesh), host), strict=False)


def _floats(values: Mapping[str, Any]) -> dict[str, float]:
    return {name: float(jnp.asarray(value)) for name, value in values.items()}


def _same(one: float | None, other: float) -> bool:
    return one == other or (one is not None and math.isnan(one) and math.isnan(other))
