"""Whether a training still has numbers: its losses, and every array of its state."""

from __future__ import annotations

import math
from collections.abc import Mapping

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, PyTree

from larvseg_jax.errors import UserError
from larvseg_jax.training.state import TrainState


class Diverged(UserError):
    """A loss or an array of the state is not finite after `step` steps."""

    def __init__(self, step: int, what: str) -> None:
        super().__init__(f"{what} at step {step}: lower optimizer.learning_rate, or look at the data")
        self.step, self.what = step, what


def check_losses(metrics: Mapping[str, float], step: int) -> None:
    """Diverged if one is not finite."""
    for name, value in metrics.items():
        if not math.isfinite(value):
            raise Diverged(step, f"{name} is {value}")


def check_state(state: TrainState, step: int) -> None:
    """Diverged if an array of parameters, optimizer or memory is not finite; looked at where it lies."""
    leaves = jax.tree_util.tree_leaves_with_path(jax.device_get(_finite(state)))
    for path, finite in leaves:
        if not finite:
            raise Diverged(step, f"{jax.tree_util.keystr(path, simple=True, separator='/')} is not finite")


@jax.jit
def _finite(tree: PyTree) -> PyTree:
    return jax.tree.map(_all_finite, tree)


def _all_finite(x: Array) -> Bool[Array, ""]:
    return jnp.isfinite(x).all() if jnp.issubdtype(x.dtype, jnp.inexact) else jnp.array(True)
