"""The two losses of a tagged stream, L_cls and L_aux (Eq. 5), and what the stream leaves for the memory bank."""

from __future__ import annotations

from typing import NamedTuple

import jax.numpy as jnp
from jax import lax
from jaxtyping import Array, Bool, Float, Int

from larvseg_jax.methods.larvseg.ca_classifier import CAConfig
from larvseg_jax.methods.larvseg.loss_grid import everywhere
from larvseg_jax.methods.larvseg.losses import mean_over_pairs, pair_losses, pooled_classifier
from larvseg_jax.methods.larvseg.memory_bank import MemoryBank
from larvseg_jax.methods.larvseg.network import class_rows
from larvseg_jax.methods.larvseg.options import TagLoss
from larvseg_jax.methods.larvseg.streams import Stream
from larvseg_jax.methods.larvseg.tag_pooling import pool_tags, rows_of_tags
from larvseg_jax.methods.method import Metrics
from larvseg_jax.models.cosine_head import ClassTable
from larvseg_jax.vocabulary import IGNORE_LABEL


class BankWrites(NamedTuple):
    """The (image, label) pairs that a step writes to the bank, in order: image, then label slot."""

    rows: Int[Array, " q"]
    features: Float[Array, "q d"]
    present: Bool[Array, " q"]


def tag_losses(
    patches: Float[Array, "b h w d"],
    table: ClassTable,
    tags: Int[Array, "b l"],
    bank: MemoryBank,
    stream: Stream,
    config: CAConfig,
    attends: bool,
) -> tuple[Metrics, BankWrites]:
    """L_cls and L_aux, and what the stream writes to the bank.

    `attends` is whether the run uses the bank at all: a stream with lambda_aux = 0 still writes to it.
    """
    b, h, w, d = patches.shape
    size, rows = (stream.loss_size, stream.loss_size), class_rows(stream.label_set, bank.class_mean.shape[0])
    present = tags != IGNORE_LABEL
    # Attention is a constant of the loss.
    where = pool_tags(*lax.stop_gradient((patches, table)), tags, rows, bank, config, size) if attends else None
    aux = where if isinstance(stream.loss, TagLoss) and stream.loss.lambda_aux > 0 else None
    weights = everywhere(b, (h, w), size)
    # One product for both losses, which reads the classes once.
    weights = weights if aux is None else jnp.concatenate([weights, aux.weights], axis=1)
    pooled = pooled_classifier(patches.reshape(b, h * w, d), table)(weights)
    losses = {"L_cls": pair_losses(pooled[:, :1], tags, table.multiplicity, present), "L_aux": jnp.zeros(())}
    if aux is not None:
        losses["L_aux"] = pair_losses(pooled[:, 1:], tags, table.multiplicity, aux.active)
    if where is not None:
        losses["attended"] = mean_over_pairs(where.active.astype(jnp.float32), tags)
    features = jnp.zeros((*tags.shape, d)) if where is None else where.features
    writes = BankWrites(rows_of_tags(tags, rows).reshape(-1), features.reshape(-1, d), present.reshape(-1))
    return losses, writes
