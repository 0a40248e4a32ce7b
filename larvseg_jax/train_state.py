"""Everything a training run is made of, as one pytree."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import optax
from flax import struct
from jax.sharding import Mesh
from jaxtyping import Array, Int, PyTree

from larvseg_jax.memory_bank import MemoryBank
from larvseg_jax.models.segmenter import Segmenter
from larvseg_jax.sharding import state_shardings


@struct.dataclass
class TrainState:
    """Attributes:
    step: steps done; batch, random numbers and learning rate of the next one are functions of it.
    params: parameters of the Segmenter.
    opt_state: optax state.
    bank: the memory bank, one for all streams and devices.
    """

    step: Int[Array, ""]
    params: PyTree
    opt_state: PyTree
    bank: MemoryBank


def create_state(
    model: Segmenter, optimizer: optax.GradientTransformation, bank_size: int, bank_dtype: str, seed: int
) -> TrainState:
    """Fresh parameters and an empty bank; the sizes of the pictures do not matter to the parameters."""
    side = model.vit.image_size
    images = jnp.zeros((1, side, side, 3))
    one_class = jnp.zeros(1, jnp.int32), jnp.ones(1)
    params = model.init(jax.random.key(seed), images, *one_class)["params"]
    bank = MemoryBank.empty(model.num_classes, bank_size, model.vit.width, bank_dtype)
    return TrainState(jnp.zeros((), jnp.int32), params, optimizer.init(params), bank)


def create_sharded_state(
    model: Segmenter, optimizer: optax.GradientTransformation, bank_size: int, bank_dtype: str, seed: int, mesh: Mesh
) -> TrainState:
    """The same, made where it will live: no array is ever whole on one device that splits it."""

    def create() -> TrainState:
        return create_state(model, optimizer, bank_size, bank_dtype, seed)

    shardings = state_shardings(jax.eval_shape(create), mesh)
    return jax.jit(create, out_shardings=shardings)()


def abstract_state(state: TrainState) -> TrainState:
    """Shapes, dtypes and shardings of a state, for restoring into."""
    return jax.tree.map(lambda x: jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=x.sharding), state)
