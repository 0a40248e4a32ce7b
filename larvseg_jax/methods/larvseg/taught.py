"""Classes that join a trained model without training: a class is a unit vector in patch space (paper, section 3.2).

The classifier scores a patch p by p . c with c = unit(e W), e the class's embedding and W the projection of the
classes. So a class whose vector is v is one more row of the embeddings, e = v W^-1, and one of the memory bank whose
slots all hold v: nothing else of the model changes, and whatever reads models reads it.
"""

from __future__ import annotations

import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Float32, PyTree

from larvseg_jax.errors import UserError
from larvseg_jax.methods.larvseg.memory_bank import MemoryBank

_LEAST_COSINE = 0.999  # of the vector that was asked for with the one that float32 gives back


def with_row(
    params: PyTree, memory: MemoryBank | None, vector: Float32[np.ndarray, " d"]
) -> tuple[PyTree, MemoryBank | None]:
    """Parameters and memory with one more class, the last, whose vector is the direction of `vector`.

    Raises:
      UserError: the vector is zero or not finite, or the projection of the classes has no inverse.
    """
    if not np.isfinite(vector).all() or not vector.any():
        raise UserError("the pixels given have no common direction: choose others, on the object alone")
    head = params["head"]
    embeddings = np.asarray(head["class_embeddings"])
    row = vector / np.linalg.norm(vector)
    if "proj_classes" in head:  # text vectors are not projected
        row = _embedding(np.asarray(head["proj_classes"], np.float64), row)
    row *= np.median(np.linalg.norm(embeddings, axis=1)) / np.linalg.norm(row)
    grown = jnp.asarray(np.concatenate([embeddings, row[None].astype(np.float32)]))
    params = {**params, "head": {**head, "class_embeddings": grown}}
    return params, None if memory is None else _filled(memory, vector / np.linalg.norm(vector))


def without_row(params: PyTree, memory: MemoryBank | None, row: int) -> tuple[PyTree, MemoryBank | None]:
    """Parameters and memory without the class of a row; those behind it move up."""
    head = params["head"]
    left = jnp.delete(head["class_embeddings"], row, axis=0)
    params = {**params, "head": {**head, "class_embeddings": left}}
    if memory is None:
        return params, None
    slots, cursor, wraps, mean = (
        jnp.delete(x, row, axis=0) for x in (memory.slots, memory.cursor, memory.wraps, memory.class_mean)
    )
    return params, MemoryBank(slots, cursor, wraps, mean)


def _embedding(projection: Float[np.ndarray, "d d"], vector: Float[np.ndarray, " d"]) -> Float[np.ndarray, " d"]:
    """e with unit(e W) = v; in float64, because W of a trained head is badly conditioned."""
    try:
        embedding = np.linalg.solve(projection.T, vector)
    except np.linalg.LinAlgError:
        embedding = np.linalg.pinv(projection.T) @ vector
    back = np.asarray(embedding, np.float32) @ np.asarray(projection, np.float32)
    length = np.linalg.norm(back)
    if not np.isfinite(length) or length == 0 or back @ vector < _LEAST_COSINE * length:
        raise UserError("this model's projection of the classes has no inverse: no class can be added to it")
    return embedding


def _filled(memory: MemoryBank, vector: Float[np.ndarray, " d"]) -> MemoryBank:
    """The bank with one more class, whose ring has been filled with the vector once."""

    def grown(array: Array, value: np.ndarray | np.int32) -> Array:
        return jnp.concatenate([array, jnp.broadcast_to(jnp.asarray(value, array.dtype), (1, *array.shape[1:]))])

    return MemoryBank(
        grown(memory.slots, vector),
        grown(memory.cursor, np.int32(0)),
        grown(memory.wraps, np.int32(1)),
        grown(memory.class_mean, vector),
    )
