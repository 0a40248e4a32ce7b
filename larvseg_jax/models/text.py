"""CLIP's text tower: token ids to tokens that see only what stands before them (Radford et al. 2021, section 2.4)."""

from __future__ import annotations

import dataclasses
from typing import Literal

import jax.numpy as jnp
from flax import linen as nn
from jaxtyping import Array, Float, Int

from larvseg_jax.errors import UserError
from larvseg_jax.models.blocks import EncoderBlock, layer_norm
from larvseg_jax.models.vit_config import ViTConfig
from larvseg_jax.options import Count

TextMlp = Literal["gelu", "quick_gelu"]


@dataclasses.dataclass(frozen=True)
class TextConfig:
    """Sizes of a text tower, by default those of CLIP ViT-B.

    Vocabulary and context are the tokenizer's, the activation of its MLPs the image tower's (`model.mlp`).
    """

    width: Count = 512  # features of a token
    depth: Count = 12  # blocks
    num_heads: Count = 8
    mlp_dim: Count = 2048  # hidden width of the MLP of a block
    dtype: Literal["float32", "bfloat16"] = "float32"  # of the tower's computation; parameters stay float32
    remat: bool = False  # compute the blocks' activations again in the backward pass: less memory, more time

    def __post_init__(self) -> None:
        if self.width % self.num_heads:
            raise UserError(f"text.width={self.width} is not a multiple of text.num_heads={self.num_heads}")

    def blocks(self, mlp: TextMlp) -> ViTConfig:
        """What its blocks have of a vision transformer."""
        sizes = self.width, self.depth, self.num_heads, self.mlp_dim
        return ViTConfig(*sizes, dtype=self.dtype, mlp=mlp, layer_norm_epsilon=1e-5)


class TextTower(nn.Module):
    """Ids to final-normed tokens.

    Attributes:
      config: sizes.
      vocabulary: number of ids.
      context: most ids of a text.
      mlp: the activation of its MLPs.
    """

    config: TextConfig
    vocabulary: int
    context: int
    mlp: TextMlp

    @nn.compact
    def __call__(self, ids: Int[Array, "b l"]) -> Float[Array, "b l d"]:
        """Texts of any number of ids up to the context; float32 whatever the compute dtype."""
        cfg, blocks, length = self.config, self.config.blocks(self.mlp), ids.shape[1]
        if length > self.context:
            raise UserError(f"a text of {length} ids does not fit a context of {self.context}: cut it")
        dtype = jnp.dtype(cfg.dtype)
        table = self.param("token_embedding", nn.initializers.normal(0.02), (self.vocabulary, cfg.width))
        positions = self.param("positional_embedding", nn.initializers.normal(0.01), (self.context, cfg.width))
        x = (table[ids] + positions[None, :length]).astype(dtype)
        block = nn.remat(EncoderBlock, static_argnums=(2,)) if cfg.remat else EncoderBlock
        for i in range(cfg.depth):
            x = block(blocks, "all_heads", 0.0, causal=True, name=f"encoderblock_{i}")(x, False)
        return layer_norm(x, blocks, "final_norm").astype(jnp.float32)


def at_end(tokens: Float[Array, "b l d"], ids: Int[Array, "b l"]) -> Float[Array, "b d"]:
    """The token at the end of each text, which is where its largest id first stands. What follows plays no role."""
    end = jnp.argmax(ids, axis=1)
    return jnp.take_along_axis(tokens, end[:, None, None], axis=1)[:, 0]
