"""Backbone and head joined: pictures in, unit patch features and a class table out."""

from __future__ import annotations

from typing import cast

import jax.numpy as jnp
import numpy as np
from flax import linen as nn
from jaxtyping import Array, Float, Int, PyTree

from larvseg_jax.models.attention import Attention
from larvseg_jax.models.cosine_head import ClassTable, CosineHead
from larvseg_jax.models.partial import StoredTokens, backbone_from, patches_of
from larvseg_jax.models.vit_config import ViTConfig
from larvseg_jax.vocabulary import LabelSet


class Network(nn.Module):
    """The whole network. Logits are left to the caller, who knows which classes take part."""

    vit: ViTConfig
    num_classes: int
    gamma_init: float = 1.0
    attention: Attention = "all_heads"  # as in VisionTransformer
    still: int = 0  # likewise
    first: int = 0  # the block that it begins with, from tokens; 0: from pictures
    text_width: int = 0  # of the text vectors that stand for the classes; 0: embeddings are learnt

    def setup(self) -> None:
        self.backbone = backbone_from(self.first, self.vit, self.attention, self.still)
        self.head = CosineHead(self.num_classes, self.vit.width, self.gamma_init, self.text_width)

    def __call__(
        self,
        images: Float[Array, "b height width 3"] | StoredTokens,
        rows: Int[Array, " n"] | None,
        multiplicity: Float[Array, " n"],
        *,
        train: bool = False,
    ) -> tuple[Float[Array, "b h w e"], ClassTable]:
        """Unit patch features of the pictures and the table of the classes in `rows` (None: all)."""
        return self.embed(images, train=train), self.classes(rows, multiplicity)

    def embed(
        self, images: Float[Array, "b height width 3"] | StoredTokens, *, train: bool = False
    ) -> Float[Array, "b h w e"]:
        """Unit patch features of the pictures (or of what the first blocks have made of them)."""
        return self.head.patches(patches_of(self.backbone(images, train=train)))

    def classes(self, rows: Int[Array, " n"] | None, multiplicity: Float[Array, " n"]) -> ClassTable:
        """The table of the classes in `rows` (None: all)."""
        return self.head.classes(rows, multiplicity)


def segment(
    model: Network,
    params: PyTree,
    images: Float[Array, "b height width 3"] | StoredTokens,
    label_set: LabelSet,
    drop_path_key: Array | None = None,
) -> tuple[Float[Array, "b h w e"], ClassTable]:
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
