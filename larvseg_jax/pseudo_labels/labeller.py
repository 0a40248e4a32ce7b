"""From windows of photos to scores of classes: proposals, their crops, what an image-text model says of them."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, cast

import jax
import jax.numpy as jnp
from jax.sharding import Mesh
from jaxtyping import Array, Bool, Float, Int, PyTree

from larvseg_jax.config import network_sections
from larvseg_jax.devices.mesh import batch_sharding
from larvseg_jax.errors import UserError
from larvseg_jax.methods.crops import Fill, crop_scores, masks_on_pixels
from larvseg_jax.methods.method import Proposes, Reader, ReadsText
from larvseg_jax.trained import Trained


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
          fill: what crops show outside the mask. `Paper:` none.
          templates: sentences for the names (text/prompts.py); "": the reader's own.
        """
        if not isinstance(proposer.method, Proposes):
            raise UserError(f"{proposer.source} has no proposals: give --run a model of CEL")
        if not isinstance(reader.method, ReadsText):
            raise UserError(f"{reader.source} does not read text: give --clip a model of CLIP or ViL-Seg")
        self._proposals, self._fill = proposer.method, fill
        self._reader = Reader(reader.method, (), network_sections(reader.settings)[1])
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
        side = pixels.shape[1]
        masks = masks_on_pixels(self._proposals.proposals(params, memory, pixels), (side, side))
        shown = masks & of_photo(content, side)[:, None]
        found = crop_scores(self._reader._replace(params=reader), text, pixels, shown, self._fill)
        return jax.vmap(best_scores)(*found)


def of_photo(content: Int[Array, "b 2"], side: int) -> Bool[Array, "b {side} {side}"]:
    """Where square windows show their photos, which begin in the corner."""
    places = jnp.arange(side)[None]
    rows, columns = places < content[:, :1], places < content[:, 1:]
    return rows[:, :, None] & columns[:, None, :]


def best_scores(scores: Float[Array, "q c"], valid: Bool[Array, " q"]) -> Float[Array, " c"]:
    """s_j = max over proposals of s_ij (Eq. 10); 0 where no proposal is valid."""
    return jnp.max(jnp.where(valid[:, None], scores, 0.0), axis=0)
