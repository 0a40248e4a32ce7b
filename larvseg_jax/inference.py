"""A trained model as a function from pictures to scores."""

from __future__ import annotations

import functools
from collections.abc import Callable

import jax
import numpy as np
from jax.sharding import Mesh, NamedSharding, PartitionSpec
from jaxtyping import PyTree

from larvseg_jax.models.head import standardised_logits
from larvseg_jax.models.segmenter import Segmenter, segment
from larvseg_jax.sharding import batch_sharding
from larvseg_jax.vocabulary import LabelSet


def make_patch_logits(model: Segmenter, label_set: LabelSet, mesh: Mesh) -> Callable[[PyTree, np.ndarray], jax.Array]:
    """(params, normalised pictures (b, H, W, 3)) -> logits on the patch grid (b, h, w, n), float32.

    Only the classes of `label_set` take part in the standardisation (method 10). b must be a multiple of
    the mesh's `data`; the scores come back whole on every device.
    """

    @functools.partial(jax.jit, out_shardings=NamedSharding(mesh, PartitionSpec()))
    def patch_logits(params: PyTree, images: jax.Array) -> jax.Array:
        return standardised_logits(*segment(model, params, images, label_set))

    return lambda params, images: patch_logits(params, jax.device_put(images, batch_sharding(mesh)))
