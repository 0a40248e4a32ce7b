"""Vision transformer (docs/method.md, section 2). The parameter tree has the names of the AugReg checkpoints."""

from __future__ import annotations

from typing import NamedTuple

import jax.numpy as jnp
from flax import linen as nn
from jaxtyping import Array, Float

from larvseg_jax.models.attention import Attention, filled_up
from larvseg_jax.models.blocks import EncoderBlock, layer_norm
from larvseg_jax.models.embedding import Embedding
from larvseg_jax.models.pixels import own_pixels
from larvseg_jax.models.position import PositionEmbedding
from larvseg_jax.models.vit_config import ViTConfig


class Tokens(NamedTuple):
    """What the backbone says of pictures: float32, after the final norm.

    Attributes:
      cls: the class token, one vector per picture; None if the network has none.
      patches: one vector per patch.
    """

    cls: Float[Array, "b d"] | None
    patches: Float[Array, "b h w d"]


class VisionTransformer(nn.Module):
    """Images to final-normed tokens.

    Attributes:
      config: sizes.
      attention: how it is computed (models/attention_choice.py); "head_by_head" is for one device only.
      still: how many of the first blocks have no drop path, being frozen with all below them (models/frozen.py).
    """

    config: ViTConfig
    attention: Attention = "all_heads"
    still: int = 0

    @nn.compact
    def __call__(self, images: Float[Array, "b height width 3"], *, train: bool = False) -> Tokens:
        """Any picture size: padded at the bottom and right with zeros (= the mean colour) to whole patches.

        With train=True a "drop_path" random key is needed. Returns float32 whatever the compute dtype.
        """
        cfg = self.config
        dtype = jnp.dtype(cfg.dtype)
        tokens = Embedding(cfg, name="embedding" if cfg.stem == "patch" else "stem")(
            own_pixels(_pad_to_patches(images, cfg.patch_size), cfg.pixels).astype(dtype)
        )
        b, h, w, d = tokens.shape
        tokens = tokens.reshape(b, h * w, d)
        if cfg.class_token:
            cls = self.param("cls", nn.initializers.zeros, (1, 1, d))
            tokens = jnp.concatenate([jnp.broadcast_to(cls.astype(dtype), (b, 1, d)), tokens], 1)
        tokens = Encoder(cfg, self.attention, self.still, name="Transformer")(tokens, (h, w), train)
        patches = tokens[:, cfg.leading_tokens :].reshape(b, h, w, d).astype(jnp.float32)
        return Tokens(tokens[:, 0].astype(jnp.float32) if cfg.class_token else None, patches)


class Encoder(nn.Module):
    """Position embedding and registers, a norm if norm_before is on, the blocks, the final norm.

    Of tokens that enter block `first` (registers among them), what follows from there.
    """

    config: ViTConfig
    attention: Attention
    still: int = 0
    first: int = 0

    @nn.compact
    def __call__(self, tokens: Float[Array, "b n d"], grid: tuple[int, int], train: bool) -> Float[Array, "b m d"]:
        cfg = self.config
        x, real = filled_up(tokens if self.first else self._with_positions(tokens, grid), self.attention)
        block = nn.remat(EncoderBlock, static_argnums=(2,)) if cfg.remat else EncoderBlock
        for i in range(self.first, cfg.depth):
            rate = 0.0 if i < self.still else cfg.drop_path * i / max(cfg.depth - 1, 1)
            x = block(cfg, self.attention, rate, real=real, name=f"encoderblock_{i}")(x, train)
        return layer_norm(x[:, :real], cfg, "encoder_norm")

    def _with_positions(self, tokens: Float[Array, "b n d"], grid: tuple[int, int]) -> Float[Array, "b m d"]:
        cfg = self.config
        x = PositionEmbedding(cfg, name="posembed_input")(tokens, grid)
        if cfg.registers:
            b, _, d = x.shape
            registers = self.param("registers", nn.initializers.normal(0.02), (1, cfg.registers, d)).astype(x.dtype)
            registers = jnp.broadcast_to(registers, (b, cfg.registers, d))
            x = jnp.concatenate([x[:, : cfg.class_token], registers, x[:, cfg.class_token :]], 1)
        return layer_norm(x, cfg, "norm_before") if cfg.norm_before else x


def _pad_to_patches(images: Float[Array, "b height width 3"], patch: int) -> Float[Array, "b H W 3"]:
    _, height, width, _ = images.shape
    return jnp.pad(images, ((0, 0), (0, -height % patch), (0, -width % patch), (0, 0)))
