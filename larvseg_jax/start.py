"""What a run starts from: its own newest checkpoint, other weights, or nothing."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Collection

import jax
from jax.sharding import Mesh, NamedSharding
from jaxtyping import PyTree

from larvseg_jax import assemble
from larvseg_jax.config import Experiment
from larvseg_jax.devices.mesh import WHOLE
from larvseg_jax.errors import UserError
from larvseg_jax.methods.method import Method
from larvseg_jax.options import changes
from larvseg_jax.training.state import TrainState
from larvseg_jax.weights.checkpoint import Checkpoints
from larvseg_jax.weights.places import steps_named
from larvseg_jax.weights.pretrained import check_there, load_pretrained
from larvseg_jax.weights.record import Record, changed_options


def check_start(run: Experiment) -> None:
    """UserError if it can be known before anything is computed: another run's folder, no weights to start from."""
    if not steps_named(run.workdir):
        if run.pretrained:
            check_there(run.pretrained)
        return
    try:
        name = json.loads((run.workdir / "config.json").read_text())["name"]
    except (OSError, ValueError, KeyError, TypeError):
        return  # the checkpoints say what they are
    if name != run.name:
        raise UserError(
            f"{run.workdir} holds the run {name!r}, and this is {run.name!r}: give this one a --config.workdir of its "
            f"own, or go on with that one by --config.name={name}"
        )


def first_state(
    run: Experiment,
    mesh: Mesh,
    method: Method,
    checkpoints: Checkpoints,
    record: Record,
    accept: Collection[str] = (),
) -> tuple[TrainState, list[str]]:
    """Where the weights come from: this run's own checkpoint; else what `pretrained` names; else nowhere.

    The lines say which it was, and what is not as it was when that checkpoint was written.
    """
    restored = checkpoints.restore_latest(assemble.state_layout(run, mesh, method), record, accept)
    if restored is not None:
        state, then = restored
        changed = [*changed_options(then, record), *changes(then.data, record.data)]
        return state, [f"resumed at step {int(state.step)}", *(f"changed: {line}" for line in changed)]
    fresh = assemble.fresh_state(run, mesh, method)
    if not run.pretrained:
        return fresh, ["from scratch"]
    params, report = load_pretrained(
        run.pretrained, fresh.params, run.vit, run.vocabulary.classes, run.pretrained_parts
    )
    return dataclasses.replace(fresh, params=params), [str(report)]


def first_params(run: Experiment, mesh: Mesh) -> tuple[PyTree, str]:
    """The parameters that a training of the run begins with, whole on every device, and where they come from.

    Nothing else of its state is made, and checkpoints of its own are not looked at.

    Raises:
      UserError: the weights cannot be read, or the method has no parameters backbone/.
    """
    method, whole = assemble.make_method(run, mesh), NamedSharding(mesh, WHOLE)
    params = jax.jit(lambda key: method.init(key)[0], out_shardings=whole)(jax.random.key(run.seed))
    if "backbone" not in params:
        raise UserError(f"method {run.settings['method']['name']!r} has no parameters backbone/: it has no features")
    if not run.pretrained:
        return params, "from scratch"
    params, report = load_pretrained(run.pretrained, params, run.vit, run.vocabulary.classes, run.pretrained_parts)
    return params, str(report)
