"""The real train step, compiled for the devices that are here."""

from __future__ import annotations

import dataclasses
import time

import jax
import numpy as np
from jax.sharding import Mesh

from larvseg_jax import assemble
from larvseg_jax.config import Experiment
from larvseg_jax.devices.memory import ProgramMemory, program_memory
from larvseg_jax.training.step import TrainStep

_STEPS = 5  # timed, after one that is not


@dataclasses.dataclass(frozen=True)
class StepReport:
    """What compiling, and perhaps running, the step showed.

    Attributes:
      memory: what it takes of each device; None if the backend does not say.
      seconds: of one step; None if it was not run.
      failure: why it could not be compiled or run, "" if it could.
    """

    memory: ProgramMemory | None
    seconds: float | None = None
    failure: str = ""


def try_step(run: Experiment, mesh: Mesh, *, execute: bool) -> StepReport:
    """Compiles the step; with `execute` runs it on blank pictures, which take as long as real ones."""
    memory: ProgramMemory | None = None
    try:
        compiled = assemble.lower_step(run, mesh, assemble.state_layout(run, mesh)).compile()
        memory = program_memory(compiled)
        return StepReport(memory, _seconds(run, mesh, assemble.seeded(run, mesh, compiled)) if execute else None)
    except jax.errors.JaxRuntimeError as error:  # out of memory, for the most part
        return StepReport(memory, failure=" ".join(str(error).split())[:300])


def _seconds(run: Experiment, mesh: Mesh, step: TrainStep) -> float:
    """Mean seconds of a step."""
    state = assemble.fresh_state(run, mesh)
    blank = jax.tree.map(
        lambda x: jax.device_put(np.zeros(x.shape, x.dtype), x.sharding), assemble.abstract_batch(run, mesh)
    )
    batch = {name: {**arrays, "valid": arrays["valid"] | True} for name, arrays in blank.items()}
    batch = jax.tree.map(lambda x, like: jax.device_put(x, like.sharding), batch, blank)
    state, _ = jax.block_until_ready(step(state, batch))
    begun = time.monotonic()
    for _ in range(_STEPS):
        state, _ = step(state, batch)
    jax.block_until_ready(state)
    return (time.monotonic() - begun) / _STEPS
