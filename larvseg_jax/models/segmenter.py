"""Backbone and head joined: pictures in, unit patch features and a class table out."""

from __future__ import annotations

import math
from typing import cast

import jax.numpy as jnp
import numpy as np
from flax import linen as nn
from jax.sharding import Mesh
from jaxtyping import Array, Float, Int, PyTree

from larvseg_jax.config import Experiment
from larvseg_jax.models.head import ClassTable, CosineHead
from larvseg_jax.models.vit import VisionTransformer, ViTConfig
from larvseg_jax.vocabulary import LabelSet

ROWS_MULTIPLE = 16
"""Class rows are filled up to a multiple of this, so that a checkpoint fits meshes with other model axes."""


class Segmenter(nn.Module):
    """The whole network. Logits are left to the caller, who knows which classes take part."""

    vit: ViTConfig
    num_classes: int
    gamma_init: float = 1.0

    def setup(self) -> None:
        self.backbone = VisionTransformer(self.vit)
        self.head = CosineHead(self.num_classes, self.vit.width, self.gamma_init)

    def __call__(
        self,
        images: Float[Array, "b height width 3"],
        rows: Int[Array, " n"] | None,
        multiplicity: Float[Array, " n"],
        *,
        train: bool = False,
    ) -> tuple[Float[Array, "b h w d"], ClassTable]:
        """Unit patch features of the pictures and the table of the classes in `rows` (None: all)."""
        features = self.backbone(images, train=train)
        return self.head.patches(features), self.head.classes(rows, multiplicity)


def segment(
    model: Segmenter,
    params: PyTree,
    images: Float[Array, "b height width 3"],
    label_set: LabelSet,
    drop_path_key: Array | None = None,
) -> tuple[Float[Array, "b h w d"], ClassTable]:
    """Runs the model with the classes of a label set; as in training (drop path) if a random key is given."""
    patches, table = model.apply(
        {"params": params},
        images,
        class_rows(label_set, model.num_classes),
        jnp.asarray(label_set.multiplicity),
        train=drop_path_key is not None,
        rngs=None if drop_path_key is None else {"drop_path": drop_path_key},
    )
    return patches, cast(ClassTable, table)


def class_rows(label_set: LabelSet, num_classes: int) -> Int[Array, " n"] | None:
    """The rows of a label set's columns; None if its columns are the rows, all of them and in order."""
    rows = label_set.rows
    return None if np.array_equal(rows, np.arange(num_classes)) else jnp.asarray(rows)


def make_model(run: Experiment, mesh: Mesh) -> Segmenter:
    """The network of a run."""
    return Segmenter(run.vit, padded_classes(len(run.vocabulary.classes), mesh), run.gamma_init)


def padded_classes(classes: int, mesh: Mesh) -> int:
    """Rows of the class embeddings and the bank: filled up to what the mesh's `model` axis divides."""
    return classes + -classes % math.lcm(ROWS_MULTIPLE, mesh.shape["model"])
