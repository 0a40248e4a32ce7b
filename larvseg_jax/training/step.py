"""One training step, the same for every method (methods/method.py)."""

from __future__ import annotations

from collections.abc import Callable

import jax
import optax

from larvseg_jax.methods.method import Batch, Method, Metrics
from larvseg_jax.training.frozen import gradient_of_moving, keep_frozen
from larvseg_jax.training.state import TrainState

TrainStep = Callable[[TrainState, Batch], tuple[TrainState, Metrics]]


def make_train_step(
    method: Method, optimizer: optax.GradientTransformation, *, seed: int | jax.Array, frozen: str = ""
) -> TrainStep:
    """The pure function (state, batch) -> (state, metrics); jit it with the state's shardings.

    A `seed` that is an array (`training.state.seed_array`) is no constant of the program.
    `frozen`: regular expression on the paths of parameters that stay as they are, as the optimizer has it.
    """
    gradient = gradient_of_moving(method, frozen)

    def train_step(state: TrainState, batch: Batch) -> tuple[TrainState, Metrics]:
        key = jax.random.fold_in(jax.random.key(seed), state.step)
        (loss, (metrics, seen)), grads = gradient(state.params, state.memory, batch, key)
        # Optax mixes integers and floats in AdamW's bias correction, which strict promotion refuses.
        with jax.numpy_dtype_promotion("standard"):
            updates, opt_state = optimizer.update(grads, state.opt_state, state.params)
        params = keep_frozen(frozen, state.params, optax.apply_updates(state.params, updates))
        memory = method.remember(state.memory, params, seen)
        return TrainState(state.step + 1, params, opt_state, memory), metrics | {"loss": loss}

    return train_step
