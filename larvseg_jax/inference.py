"""A trained model as a function from pictures to scores."""

from __future__ import annotations

import functools
from collections.abc import Callable

import jax
import numpy as np
from jax.sharding import Mesh, NamedSharding
from jaxtyping import PyTree

from larvseg_jax.models.head import standardised_logits
from larvseg_jax.models.segmenter import Segmenter, segment
from larvseg_jax.sharding import WHOLE, batch_sharding
from larvseg_jax.vocabulary import LabelSet


def make_patch_logits(model: Segmenter, label_set: LabelSet, mesh: Mesh) -> Callable[[PyTree, np.ndarray], jax.Array]:
    """(params, normalised pictures (b, H, W, 3)) -> logits on the patch grid (b, h, w, n), float32.

    Only the classes of `label_set` take part in the standardisation (method 10). b must be a multiple of
    the mesh's `data`; the scores come back whole on every device. Of several processes each passes all pictures
    and gets all scores; the work in between is split over the devices of all.
    """

    @functools.partial(jax.jit, out_shardings=NamedSharding(mesh, WHOLE))
    def patch_logits(params: PyTree, images: jax.Array) -> jax.Array:
        return standardised_logits(*segment(model, params, images, label_set))

    def place(images: np.ndarray) -> jax.Array:
        return jax.make_array_from_callback(images.shape, batch_sharding(mesh), images.__getitem__)

    return lambda params, images: patch_logits(params, place(images))
