"""The memory bank: pixel features of every class, one mean vector per slot (docs/method.md, 6.1 to 6.4).

Eq. 3 averages the cosine of a pixel with all M*K stored features. Cosine with a unit vector is linear,
so a slot keeps the mean of its K unit features and nothing is lost.
`Paper:` a bank for novel classes only; here, and in the authors' code, for all.

Letters: c classes of the vocabulary, m slots per class, d feature width, q (image, label) pairs of a step.
"""

from __future__ import annotations

from typing import Any

import jax.numpy as jnp
from flax import struct
from jax import lax
from jaxtyping import Array, Bool, Float, Int

from larvseg_jax.devices.in_step import on_class_shards


@struct.dataclass
class MemoryBank:
    """A ring of slots per class. The leaves are arrays, or their shapes or shardings in a layout.

    Attributes:
      slots: (c, m, d), mean of K unit features each; zero while never written. `Original:` random unit
        vectors, whose average cosine is zero in expectation.
      cursor: (c,) int32, next slot to be written.
      wraps: (c,) int32, how often the ring has been filled.
      class_mean: (c, d) float32, mean over the slots, all that scoring needs; kept in step with `slots`.
    """

    slots: Any
    cursor: Any
    wraps: Any
    class_mean: Any

    @classmethod
    def from_slots(cls, slots: Float[Array, "c m d"]) -> MemoryBank:
        """A bank whose rings start at slot 0 with the given contents."""
        # Two arrays of zeros, because one buffer cannot be donated twice.
        cursor, wraps = jnp.zeros(slots.shape[0], jnp.int32), jnp.zeros(slots.shape[0], jnp.int32)
        return cls(slots, cursor, wraps, jnp.mean(slots, axis=1, dtype=jnp.float32))

    @classmethod
    def empty(cls, classes: int, size: int, width: int, dtype: str = "float32") -> MemoryBank:
        """A bank in which nothing was written yet."""
        return cls.from_slots(jnp.zeros((classes, size, width), dtype))

    def is_warm(self, rows: Int[Array, "*pairs"], warmup: int) -> Bool[Array, "*pairs"]:
        """Whether the rings of the classes have been filled `warmup` times (method 6.4)."""
        return self.wraps[rows] >= warmup

    def filled(self, rows: Bool[Array, " c"], warmup: int) -> Float[Array, ""]:
        """How far the rings of some classes are filled up to the warm-up: 0 = nothing was written, 1 = all are warm."""
        wanted = warmup * self.slots.shape[1]
        if wanted == 0:
            return jnp.ones(())
        written = jnp.minimum(self.wraps * self.slots.shape[1] + self.cursor, wanted)
        shares = jnp.where(rows, written.astype(jnp.float32) / wanted, 0.0)
        return jnp.sum(shares) / jnp.sum(rows.astype(jnp.float32))


def region_features(
    patches: Float[Array, "b p d"], tag_scores: Float[Array, "b l p"], topk: int
) -> tuple[Float[Array, "b l d"], Int[Array, "b l k"]]:
    """Mean feature of the K patches that score highest for a label, and which ones, best first."""
    _, chosen = lax.top_k(tag_scores, topk)
    features = jnp.take_along_axis(patches[:, None], chosen[..., None], axis=2)
    return jnp.mean(features, axis=2), chosen


def write(
    bank: MemoryBank, rows: Int[Array, " q"], vectors: Float[Array, "q d"], valid: Bool[Array, " q"]
) -> MemoryBank:
    """Writes all pairs of a step at once, as if one after the other in the order given (method 6.2).

    The k-th pair of a class takes the k-th next slot; of more than M pairs of one class only the last M
    are stored, and cursor and wraps advance as if all had been. No two pairs write to the same place, so
    the result does not depend on the order of the scatter, hence not on the number of devices. Every
    device sees all pairs and writes those of its own classes: the bank does not move.
    `Original:` each pair writes as soon as it has read, so that later pairs of the step see it.
    """

    def write_own(own: MemoryBank, first: Int[Array, ""], pairs: tuple[Array, Array, Array]) -> MemoryBank:
        rows, vectors, valid = pairs
        rows -= first.astype(rows.dtype)
        return _write(own, rows, vectors, valid & (rows >= 0) & (rows < own.slots.shape[0]))

    return on_class_shards(write_own, bank, (rows, vectors, valid))


def _write(
    bank: MemoryBank, rows: Int[Array, " q"], vectors: Float[Array, "q d"], valid: Bool[Array, " q"]
) -> MemoryBank:
    classes, size, _ = bank.slots.shape
    rows = jnp.where(valid, rows, classes)  # out of range: dropped by every scatter below
    occurrence, count = _occurrences(rows)
    safe_rows = jnp.minimum(rows, classes - 1)
    slot = (bank.cursor[safe_rows] + occurrence) % size
    kept_rows = jnp.where(occurrence >= count - size, rows, classes)
    vectors = vectors.astype(bank.slots.dtype)
    slots = bank.slots.at[kept_rows, slot].set(vectors, mode="drop")
    # The rings after that, made of the bank before it: to read it after the scatter, the compiler for TPUs lays all of
    # it out anew in every step.
    nobody = jnp.full((classes, size), -1, jnp.int32)
    writer = nobody.at[kept_rows, slot].set(jnp.arange(len(rows), dtype=jnp.int32), mode="drop")[safe_rows]
    ring = jnp.where(writer[..., None] >= 0, vectors[jnp.maximum(writer, 0)], bank.slots[safe_rows])
    class_mean = bank.class_mean.at[rows].set(jnp.mean(ring, axis=1, dtype=jnp.float32), mode="drop")
    advanced = bank.cursor.at[rows].add(1, mode="drop")
    return MemoryBank(slots, advanced % size, bank.wraps + advanced // size, class_mean)


def _occurrences(rows: Int[Array, " q"]) -> tuple[Int[Array, " q"], Int[Array, " q"]]:
    """For each pair: how many earlier pairs have its class, and how many pairs have it in all."""
    order = jnp.argsort(rows, stable=True)
    ordered = rows[order]
    first = jnp.searchsorted(ordered, rows, side="left")
    last = jnp.searchsorted(ordered, rows, side="right")
    place = jnp.zeros_like(rows).at[order].set(jnp.arange(rows.shape[0], dtype=rows.dtype))
    return place - first.astype(rows.dtype), (last - first).astype(rows.dtype)
