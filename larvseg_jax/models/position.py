"""The position embedding, and what becomes of it where the patch grid is another one."""

from __future__ import annotations

import jax.numpy as jnp
from flax import linen as nn
from jaxtyping import Array, Float

from larvseg_jax.models.precision import precise_einsum
from larvseg_jax.models.resize import antialiased_bicubic_matrix, bicubic_matrix
from larvseg_jax.models.vit_config import ViTConfig


class PositionEmbedding(nn.Module):
    """Adds the learned embedding of class token and patches, resized whenever the grid is not the stored one.

    `Original:` resized only when the number of tokens differs, so a 4x6 embedding serves a 6x4 picture.
    """

    config: ViTConfig

    @nn.compact
    def __call__(self, tokens: Float[Array, "b n d"], grid: tuple[int, int]) -> Float[Array, "b n d"]:
        stored = self.config.stored_grid
        shape = (1, self.config.class_token + stored[0] * stored[1], tokens.shape[-1])
        embedding = self.param("pos_embedding", nn.initializers.normal(0.02), shape)
        resized = resize_position_embedding(embedding, stored, grid, self.config.position_resize)
        return tokens + resized.astype(tokens.dtype)


def resize_position_embedding(
    embedding: Float[Array, "1 n d"], old: tuple[int, int], new: tuple[int, int], how: str = "bicubic"
) -> Float[Array, "1 m d"]:
    """Entries before those of the patches, such as the class token's, are kept as they are.

    Args:
      embedding: entries of any leading tokens, then those of the patches of the grid `old`, row by row.
      old, new: grids, (rows, columns).
      how: "bicubic" (a = -0.75, no antialiasing; method 2), or "antialiased" (a = -0.5, as Pillow).
    """
    if old == new:
        return embedding
    leading = embedding.shape[1] - old[0] * old[1]
    grid = embedding[0, leading:].reshape(*old, -1)
    matrix = antialiased_bicubic_matrix if how == "antialiased" else bicubic_matrix
    grid = precise_einsum("Hh,hwd,Ww->HWd", matrix(old[0], new[0]), grid, matrix(old[1], new[1]))
    return jnp.concatenate([embedding[:, :leading], grid.reshape(1, -1, embedding.shape[-1])], 1)
