"""The frozen blocks of a run's backbone with the weights it begins with, as a function from pictures to tokens."""

from __future__ import annotations

import dataclasses
import functools
from typing import Literal

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import Mesh
from jaxtyping import Array, Int, PyTree, Shaped

from larvseg_jax.config import Experiment
from larvseg_jax.devices.mesh import batch_sharding
from larvseg_jax.models.attention import Attention
from larvseg_jax.models.attention_choice import device_attention
from larvseg_jax.models.partial import tokens_entering
from larvseg_jax.models.pixels import normalised_pictures
from larvseg_jax.models.vit_config import ViTConfig
from larvseg_jax.start import first_params

TokenDtype = Literal["float16", "float32"]

BATCH = 16
"""Photos that go through the backbone together; more where there are more devices."""


class Encoder:
    """Pictures to the tokens that enter a block.

    Attributes:
      params: of the run's method, as a training begins with them.
      story: where they come from.
      size: pictures that go through together.
    """

    def __init__(self, run: Experiment, mesh: Mesh, blocks: int, dtype: TokenDtype) -> None:
        """UserError if the weights cannot be read, or the method has no parameters backbone/."""
        self.params, self.story = first_params(run, mesh)
        self.size = -(-BATCH // mesh.shape["data"]) * mesh.shape["data"]
        self._sharding = batch_sharding(mesh)
        vit, attention = dataclasses.replace(run.vit, remat=False), device_attention(run.vit, mesh.devices.flat)
        self._compute = jax.jit(functools.partial(_encode, blocks, vit, attention, dtype))

    def __call__(
        self, images: Shaped[np.ndarray, "b height width 3"], extent: Int[np.ndarray, "b 2"] | None = None
    ) -> dict[str, jax.Array]:
        """`leading` and `patches` of at most `size` pictures, filled up to it; compiled once for each picture size.

        Args:
          images: levels (uint8), which are normalised first, or normalised pictures.
          extent: what photos fill of pictures of levels (`data_pipelines.rows.extent_of`); None: all.
        """
        given = [self._filled(x) for x in (images, extent) if x is not None]
        return self._compute(self.params["backbone"], *given)

    def _filled(self, rows: np.ndarray) -> jax.Array:
        padded = np.zeros((self.size, *rows.shape[1:]), rows.dtype)
        padded[: len(rows)] = rows
        return jax.device_put(padded, self._sharding)

    def layout(self, side: int) -> dict[str, tuple[tuple[int, ...], str]]:
        """Shape and dtype of what it makes of one picture of so many pixels."""
        picture = jax.ShapeDtypeStruct((1, side, side, 3), "float32")
        found = jax.eval_shape(self._compute, self.params["backbone"], picture)
        return {name: (x.shape[1:], str(x.dtype)) for name, x in found.items()}


def _encode(
    blocks: int,
    vit: ViTConfig,
    attention: Attention,
    dtype: TokenDtype,
    params: PyTree,
    images: Shaped[Array, "b height width 3"],
    extent: Int[Array, "b 2"] | None = None,
) -> dict[str, Array]:
    if images.dtype == jnp.uint8:
        images = normalised_pictures(images, extent)
    tokens = tokens_entering(blocks, vit, attention, params, images)
    return {name: x.astype(jnp.dtype(dtype)) for name, x in tokens._asdict().items()}
