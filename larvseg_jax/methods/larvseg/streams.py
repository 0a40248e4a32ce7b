"""A stream as LarvSeg learns from it: the columns of its logits on the devices, and the classes drawn for a step."""

from __future__ import annotations

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax
from jaxtyping import Array, Int

from larvseg_jax.methods.larvseg.options import MaskLoss, TagLoss
from larvseg_jax.methods.method import StreamTask, Task
from larvseg_jax.models.cosine_head import ClassTable
from larvseg_jax.vocabulary import IGNORE_LABEL, LabelSet


@dataclasses.dataclass(frozen=True)
class Stream:
    """What one stream adds to the loss.

    Attributes:
      name: of the stream.
      label_set: its columns on the mesh.
      loss: what it teaches: MaskLoss or TagLoss.
      loss_size: side of the loss grid.
      mesh_columns: the column on the mesh of each label in the batch; None where they are the same.
    """

    name: str
    label_set: LabelSet
    loss: MaskLoss | TagLoss
    loss_size: int
    mesh_columns: np.ndarray | None = None

    def columns(self, labels: Int[Array, "b *labels"]) -> Int[Array, "b *labels"]:
        """A label map or tags as columns of the stream's logits."""
        if self.mesh_columns is None:
            return labels
        return jnp.where(labels == IGNORE_LABEL, labels, jnp.asarray(self.mesh_columns)[jnp.maximum(labels, 0)])

    def sampled(self, table: ClassTable, labels: Int[Array, "b *labels"], key: Array) -> ClassTable:
        """The table with the classes that take part in this step (method 5.6)."""
        if not 0 < self.loss.sample_classes < np.count_nonzero(self.label_set.multiplicity):
            return table
        return sample_classes(table, labels, self.loss.sample_classes, key, self.label_set.rows)


def streams_of(task: Task) -> tuple[Stream, ...]:
    """The streams of a task, their columns laid out on its mesh."""
    return tuple(_stream(name, stream, task) for name, stream in task.streams.items())


def _stream(name: str, stream: StreamTask, task: Task) -> Stream:
    label_set, mesh_columns = columns_on(task, stream.label_set)
    return Stream(name, label_set, stream.loss, stream.view.loss_size, mesh_columns)


def columns_on(task: Task, label_set: LabelSet) -> tuple[LabelSet, np.ndarray | None]:
    """The columns a stream's logits have on the mesh, and the column of each label where these differ.

    The embeddings of a few classes are fetched from wherever they are, and the columns filled up so that `model`
    divides them. A stream that knows nearly the whole vocabulary has a column for every row instead, so that the table
    is read where it lies and not copied; where classes are split, one that knows half of it, so that each is computed
    where its embedding is. Columns of classes that it does not know take part in nothing.
    """
    shards = task.mesh.shape["model"]
    known = len(label_set)
    most = known >= 0.5 * task.classes if shards > 1 else known >= 0.9 * task.rows
    if most and len(set(label_set.rows.tolist())) == known:
        in_order = np.array_equal(label_set.rows, np.arange(known))
        return label_set.spread(task.rows), None if in_order else label_set.rows
    return label_set.padded(shards), None


def sample_classes(
    table: ClassTable, labels: Int[Array, "b *labels"], count: int, key: Array, rows: np.ndarray | None = None
) -> ClassTable:
    """Only `count` random classes of the table and those labelled in the batch take part (method 5.6).

    The others get multiplicity 0, as padding has: out of the mean, the variance, every softmax, and never mined
    as background. Classes are drawn by their `rows` (None: column n is row n), whatever the order of the columns:
    columns of one row are drawn together. `Original:` drawn per GPU, for the labels of its two images.
    """
    n = table.multiplicity.shape[0]
    real = table.multiplicity > 0
    rows = np.arange(n) if rows is None else rows
    draw = jnp.where(real, jax.random.uniform(key, (int(rows.max()) + 1,))[rows], -1.0)
    lowest = lax.top_k(draw, count)[0][-1]
    flat = labels.reshape(-1)
    present = jnp.zeros(n, bool).at[jnp.maximum(flat, 0)].max(flat != IGNORE_LABEL)
    return table._replace(multiplicity=jnp.where(present | (draw >= lowest), table.multiplicity, 0.0))
