"""From windows of photos to scores of classes: proposals, their crops, what an image-text model says of them."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Literal, cast

import jax
import jax.numpy as jnp
from jax.sharding import Mesh
from jaxtyping import Array, Bool, Float, Int, PyTree

from larvseg_jax.config import network_sections
from larvseg_jax.devices.mesh import batch_sharding
from larvseg_jax.errors import UserError
from larvseg_jax.methods.method import Proposes, ReadsText
from larvseg_jax.models.pixels import mean_colour
from larvseg_jax.models.resize import resize_bilinear
from larvseg_jax.pseudo_labels.crops import crops_of
from larvseg_jax.pseudo_labels.scores import best_scores, class_scores
from larvseg_jax.trained import Trained

Fill = Literal["none", "mean"]
"""Crops as they are (`Paper:`), or with all outside the mask in the mean colour of the image-text model."""


class Labeller:
    """Scores of classes in windows of photos; crops are of the windows, as proposals see them.

    Attributes:
      size: windows that are looked at together, one for each device.
    """

    def __init__(self, proposer: Trained, reader: Trained, names: tuple[str, ...], fill: Fill, templates: str) -> None:
        """UserError if one of the models is not what it must be, or the reader takes two of the classes for one.

        Args:
          proposer: its method offers proposals.
          reader: its method compares pictures with texts.
          names: the classes, which compete with each other alone.
          fill: see above.
          templates: sentences for the names (text/prompts.py); "": the reader's own.
        """
        if not isinstance(proposer.method, Proposes):
            raise UserError(f"{proposer.source} has no proposals: give --run a model of CEL")
        if not isinstance(reader.method, ReadsText):
            raise UserError(f"{reader.source} does not read text: give --clip a model of CLIP or ViL-Seg")
        self._proposals, self._reader = proposer.method, reader.method
        vit = network_sections(reader.settings)[1]
        self._side = vit.image_size
        self._fill = jnp.asarray(mean_colour(vit.pixels)) if fill == "mean" else None
        text = reader.method.text_vectors(reader.params, names, templates)
        self._state = (proposer.params, proposer.memory, reader.params, text)
        mesh = cast(Mesh, jax.tree.leaves(proposer.params)[0].sharding.mesh)
        self.size, self._sharding = mesh.shape["data"], batch_sharding(mesh)
        self._compute = jax.jit(self._scores)

    def __call__(self, windows: Mapping[str, Any]) -> Float[Array, "b c"]:
        """The scores (Eq. 10) of `size` windows.

        Args:
          windows: `pixels` (b, s, s, 3), and `content` (b, 2): how many of their rows and columns show the photo.
        """
        placed = jax.device_put(dict(windows), self._sharding)
        return self._compute(*self._state, placed["pixels"], placed["content"])

    def _scores(
        self,
        params: PyTree,
        memory: PyTree,
        reader: PyTree,
        text: Float[Array, "c d"],
        pixels: Float[Array, "b s s 3"],
        content: Int[Array, "b 2"],
    ) -> Float[Array, "b c"]:
        masks = masks_on_pixels(self._proposals.proposals(params, memory, pixels), content, pixels.shape[1])
        crops, valid = jax.vmap(lambda image, of: crops_of(image, of, self._side, self._fill))(pixels, masks)
        vectors = self._reader.image_vectors(reader, crops.reshape(-1, *crops.shape[2:]))
        scores = class_scores(vectors, text, self._reader.logit_scale(reader))
        return jax.vmap(best_scores)(scores.reshape(*valid.shape, -1), valid)


def masks_on_pixels(
    logits: Float[Array, "b q h w"], content: Int[Array, "b 2"], side: int
) -> Bool[Array, "b q {side} {side}"]:
    """Where sigmoid > 0.5 on the pixels of square windows, and the window shows the photo."""
    larger = jnp.moveaxis(resize_bilinear(jnp.moveaxis(logits, 1, -1), (side, side)), -1, 1)
    places = jnp.arange(side)[None]
    rows, columns = places < content[:, :1], places < content[:, 1:]
    return (larger > 0) & (rows[:, :, None] & columns[:, None, :])[:, None]
