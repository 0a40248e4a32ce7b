"""A stream's head alone, from the backbone's features to its losses: what the benchmarks of the heads time."""

from __future__ import annotations

from typing import Any

import jax

from larvseg_jax.methods.larvseg import memory_bank
from larvseg_jax.methods.larvseg.ca_classifier import CAConfig
from larvseg_jax.methods.larvseg.losses import segmentation_loss
from larvseg_jax.methods.larvseg.memory_bank import MemoryBank
from larvseg_jax.methods.larvseg.network import class_rows
from larvseg_jax.methods.larvseg.streams import Stream
from larvseg_jax.methods.larvseg.tag_losses import tag_losses
from larvseg_jax.models.cosine_head import ClassTable, CosineHead


def project(stream: Stream, params: Any, features: jax.Array, classes: int) -> tuple[jax.Array, ClassTable]:
    """Unit patch features and the stream's class table."""
    head = CosineHead(classes, features.shape[-1])
    patches: Any = head.apply({"params": params}, features, method="patches")
    rows, multiplicity = class_rows(stream.label_set, classes), jax.numpy.asarray(stream.label_set.multiplicity)
    table: Any = head.apply({"params": params}, rows, multiplicity, method="classes")
    return patches, table


def mask_head(
    stream: Stream, seg_loss_mean: str, params: Any, features: jax.Array, label: jax.Array, valid: jax.Array
) -> jax.Array:
    """L_seg."""
    patches, table = project(stream, params, features, params["class_embeddings"].shape[0])
    label = stream.columns(label)
    return segmentation_loss(patches, table, label, valid, seg_loss_mean)


def tag_head(
    stream: Stream, config: CAConfig, params: Any, features: jax.Array, bank: MemoryBank, tags: jax.Array
) -> tuple[jax.Array, tuple[dict[str, jax.Array], MemoryBank]]:
    """L_cls + L_aux; both apart, and the bank afterwards."""
    patches, table = project(stream, params, features, bank.cursor.shape[0])
    tags = stream.columns(tags)
    losses, pairs = tag_losses(patches, table, tags, bank, stream, config, True)
    return losses["L_cls"] + losses["L_aux"], (losses, memory_bank.write(bank, *pairs))
