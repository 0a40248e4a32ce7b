"""One training step: L = sum over streams of weight * (L_seg | lambda_cls L_cls + lambda_aux L_aux)   (Eq. 6).

`Paper:` every stream has weight 1; `Original:` its share of the GPUs (docs/method.md, section 5).
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax
from jax import lax
from jaxtyping import Array, Bool, Float, Int, PyTree

from larvseg_jax import memory_bank
from larvseg_jax.ca_classifier import CAConfig
from larvseg_jax.losses import (
    image_label_losses,
    mean_over_pairs,
    pooled_logits,
    pooling_weights,
    segmentation_loss,
)
from larvseg_jax.memory_bank import MemoryBank
from larvseg_jax.models.head import ClassTable
from larvseg_jax.models.segmenter import Segmenter, class_rows, segment
from larvseg_jax.tag_pooling import pool_tags, rows_of_tags
from larvseg_jax.train_state import TrainState
from larvseg_jax.vocabulary import IGNORE_LABEL, LabelSet

Batch = dict[str, dict[str, jax.Array]]
Metrics = dict[str, Float[Array, ""]]
TrainStep = Callable[[TrainState, Batch], tuple[TrainState, Metrics]]


@dataclasses.dataclass(frozen=True)
class StreamLoss:
    """What one stream adds to the loss.

    `label_columns` are the columns of the labels in the batch, where labels are not columns (data.stream_losses).
    """

    name: str
    kind: str
    label_set: LabelSet
    weight: float
    lambda_cls: float
    lambda_aux: float
    loss_size: int
    sample_classes: int = 0
    label_columns: np.ndarray | None = None

    def columns(self, batch: dict[str, jax.Array]) -> Int[Array, "b *labels"]:
        """The stream's label map or tags as columns of its logits."""
        labels = batch["label" if self.kind == "masks" else "tags"]
        if self.label_columns is None:
            return labels
        return jnp.where(labels == IGNORE_LABEL, labels, jnp.asarray(self.label_columns)[jnp.maximum(labels, 0)])


class Pairs(NamedTuple):
    """The (image, label) pairs that a step writes to the bank, in order: image, then label slot."""

    rows: Int[Array, " q"]
    features: Float[Array, "q d"]
    present: Bool[Array, " q"]


def make_train_step(
    model: Segmenter,
    optimizer: optax.GradientTransformation,
    streams: tuple[StreamLoss, ...],
    ca_config: CAConfig,
    *,
    seg_loss_mean: str,
    seed: int,
) -> TrainStep:
    """The pure function (state, batch) -> (state, metrics); jit it with the state's shardings."""
    attends = any(s.kind == "tags" and s.lambda_aux > 0 for s in streams)

    def total_loss(
        params: PyTree, bank: MemoryBank, batch: Batch, key: jax.Array
    ) -> tuple[Float[Array, ""], tuple[Metrics, list[Pairs]]]:
        total, metrics = jnp.zeros(()), dict[str, Float[Array, ""]]()
        written: list[Pairs] = []
        for index, stream in enumerate(streams):
            data, labels = batch[stream.name], stream.columns(batch[stream.name])
            drop_path_key = jax.random.fold_in(key, index)
            patches, table = segment(model, params, data["image"], stream.label_set, drop_path_key)
            if 0 < stream.sample_classes < np.count_nonzero(stream.label_set.multiplicity):
                sample_key = jax.random.fold_in(key, len(streams) + index)
                table = sample_classes(table, labels, stream.sample_classes, sample_key, stream.label_set.rows)
            if stream.kind == "masks":
                losses = {"L_seg": segmentation_loss(patches, table, labels, data["valid"], seg_loss_mean)}
                total += stream.weight * losses["L_seg"]
            else:
                losses, pairs = tag_losses(patches, table, labels, bank, stream, ca_config, attends)
                total += stream.weight * (stream.lambda_cls * losses["L_cls"] + stream.lambda_aux * losses["L_aux"])
                written.append(pairs)
            metrics |= {f"{stream.name}/{name}": value for name, value in losses.items()}
        return total, (metrics | {"loss": total}, written)

    def train_step(state: TrainState, batch: Batch) -> tuple[TrainState, Metrics]:
        key = jax.random.fold_in(jax.random.key(seed), state.step)
        gradient = jax.grad(total_loss, has_aux=True)
        grads, (metrics, written) = gradient(state.params, state.bank, batch, key)
        # Optax mixes integers and floats in AdamW's bias correction, which strict promotion refuses.
        with jax.numpy_dtype_promotion("standard"):
            updates, opt_state = optimizer.update(grads, state.opt_state, state.params)
        params = optax.apply_updates(state.params, updates)
        bank = state.bank
        if attends:
            # One transaction per step: every pair has read the old bank, now all write in a fixed order.
            bank = memory_bank.write(bank, *jax.tree.map(lambda *x: jnp.concatenate(x), *written))
        metrics["gamma"] = params["head"]["gamma"]
        return TrainState(state.step + 1, params, opt_state, bank), metrics

    return train_step


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


def tag_losses(
    patches: Float[Array, "b h w d"],
    table: ClassTable,
    tags: Int[Array, "b l"],
    bank: MemoryBank,
    stream: StreamLoss,
    config: CAConfig,
    attends: bool,
) -> tuple[Metrics, Pairs]:
    """L_cls and L_aux of a tagged stream, and what it writes to the bank.

    `attends` is whether the run uses the bank at all: a stream with lambda_aux = 0 still writes to it.
    """
    b, h, w, d = patches.shape
    flat, size = patches.reshape(b, h * w, d), (stream.loss_size, stream.loss_size)
    rows = class_rows(stream.label_set, bank.class_mean.shape[0])

    def mean_loss(pooled: Float[Array, "b k n"], active: Bool[Array, "b l"]) -> Float[Array, ""]:
        losses = image_label_losses(pooled, tags, table.multiplicity)
        return mean_over_pairs(jnp.where(active, losses, 0.0), tags)

    pooling = jnp.broadcast_to(pooling_weights(jnp.ones((1, 1, *size)), (h, w)), (b, 1, h * w))
    losses, active = {"L_aux": jnp.zeros(())}, jnp.zeros(tags.shape, bool)
    features = jnp.zeros((*tags.shape, d))
    if attends:
        where = pool_tags(*lax.stop_gradient((patches, table)), tags, rows, bank, config, size)
        features, active = where.features, where.active
        losses["attended"] = mean_over_pairs(active.astype(jnp.float32), tags)
        if stream.lambda_aux > 0:
            pooling = jnp.concatenate([pooling, where.weights], axis=1)
    pooled = pooled_logits(flat, pooling, table)  # in one call: what depends on the classes alone serves both losses
    present = tags != IGNORE_LABEL
    losses["L_cls"] = mean_loss(pooled[:, :1], present)
    if pooled.shape[1] > 1:
        losses["L_aux"] = mean_loss(pooled[:, 1:], active)
    return losses, Pairs(rows_of_tags(tags, rows).reshape(-1), features.reshape(-1, d), present.reshape(-1))
