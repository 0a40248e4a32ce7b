"""Everything a training run is made of, as one pytree."""

from __future__ import annotations

import functools
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
from flax import struct
from jax.sharding import Mesh
from jaxtyping import PyTree

from larvseg_jax.devices.sharding import ShardingRules, state_shardings
from larvseg_jax.methods.method import Method

SEED_DTYPE = np.uint32


@struct.dataclass
class TrainState:
    """The state of a run after `step` steps. The leaves are arrays, or their shapes or shardings in a layout.

    Attributes:
      step: int32 scalar, steps done; batch, random numbers and learning rate of the next one are functions of it.
      params: what the gradient moves.
      opt_state: optax state.
      memory: what the method keeps besides, without gradient (LarvSeg: its memory bank).
    """

    step: Any
    params: PyTree
    opt_state: PyTree
    memory: PyTree


def initial_state(
    method: Method, optimizer: optax.GradientTransformation, *, seed: int, mesh: Mesh, rules: ShardingRules
) -> TrainState:
    """A state of no steps, made where it will live: nothing is ever whole on one device."""
    create, array = functools.partial(_create, method, optimizer), seed_array(seed)
    shardings = state_shardings(jax.eval_shape(create, array), mesh, rules)
    return jax.jit(create, out_shardings=shardings)(array)  # not a constant, see `seed_array`


def state_layout(
    method: Method, optimizer: optax.GradientTransformation, *, seed: int, mesh: Mesh, rules: ShardingRules
) -> TrainState:
    """Shapes, dtypes and shardings of the state, for restoring into and for compiling."""
    shapes = jax.eval_shape(functools.partial(_create, method, optimizer, seed))
    return jax.tree.map(
        lambda x, sharding: jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=sharding),
        shapes,
        state_shardings(shapes, mesh, rules),
    )


def seed_array(seed: int) -> np.ndarray:
    """A seed as an argument of compiled programs: all seeds share the one that is kept on disk.

    Random numbers are those of jax.random.key(seed), of which the lowest 32 bits count.
    """
    return np.array(seed % 2**32, SEED_DTYPE)


def _create(method: Method, optimizer: optax.GradientTransformation, seed: Any) -> TrainState:
    params, memory = method.init(jax.random.key(seed))
    return TrainState(jnp.zeros((), jnp.int32), params, optimizer.init(params), memory)
