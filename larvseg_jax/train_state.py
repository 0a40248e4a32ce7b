"""Everything a training run is made of, as one pytree."""

from __future__ import annotations

import functools
from typing import Any

import jax
import jax.numpy as jnp
from flax import struct
from jax.sharding import Mesh
from jaxtyping import PyTree

from larvseg_jax.config import Experiment
from larvseg_jax.memory_bank import MemoryBank
from larvseg_jax.models.segmenter import make_model
from larvseg_jax.optimizer import make_optimizer
from larvseg_jax.sharding import state_shardings


@struct.dataclass
class TrainState:
    """The state of a run after `step` steps. The leaves are arrays, or their shapes or shardings in a layout.

    Attributes:
      step: int32 scalar, steps done; batch, random numbers and learning rate of the next one are functions of it.
      params: parameters of the Segmenter.
      opt_state: optax state.
      bank: the memory bank, one for all streams and devices. `Original:` one per GPU, hence per data set.
    """

    step: Any
    params: PyTree
    opt_state: PyTree
    bank: MemoryBank


def fresh_state(run: Experiment, mesh: Mesh) -> TrainState:
    """Fresh parameters and an empty bank, made where they will live: nothing is ever whole on one device."""
    create = functools.partial(_create, run, mesh)
    return jax.jit(create, out_shardings=state_shardings(jax.eval_shape(create), mesh, run.sharding))()


def state_layout(run: Experiment, mesh: Mesh) -> TrainState:
    """Shapes, dtypes and shardings of a run's state, for restoring into."""
    shapes = jax.eval_shape(functools.partial(_create, run, mesh))
    return jax.tree.map(
        lambda x, sharding: jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=sharding),
        shapes,
        state_shardings(shapes, mesh, run.sharding),
    )


def _create(run: Experiment, mesh: Mesh) -> TrainState:
    model, side = make_model(run, mesh), run.vit.image_size
    one_class = jnp.zeros(1, jnp.int32), jnp.ones(1)  # parameters do not depend on which classes take part
    params = model.init(jax.random.key(run.seed), jnp.zeros((1, side, side, 3)), *one_class)["params"]
    opt_state = make_optimizer(run.optimizer, run.total_steps).init(params)
    ca = run.ca_classifier
    bank = MemoryBank.empty(model.num_classes, ca.memory_bank_size, run.vit.width, ca.bank_dtype)
    return TrainState(jnp.zeros((), jnp.int32), params, opt_state, bank)
