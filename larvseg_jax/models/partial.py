"""A backbone in parts: the tokens that enter a block or leave it, and what the blocks from there on make of them."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple, cast

import jax.numpy as jnp
from flax import linen as nn
from jaxtyping import Array, Float, PyTree

from larvseg_jax.models.attention import Attention
from larvseg_jax.models.vit import Encoder, Tokens, VisionTransformer
from larvseg_jax.models.vit_config import ViTConfig


class StoredTokens(NamedTuple):
    """The tokens that enter a block (before the final norm, if there is no block left).

    Attributes:
      leading: those without a place in the picture: the class token, and whatever else the backbone has.
      patches: one per patch.
    """

    leading: Float[Array, "b l d"]
    patches: Float[Array, "b h w d"]


def tokens_entering(
    block: int, config: ViTConfig, attention: Attention, params: PyTree, images: Float[Array, "b height width 3"]
) -> StoredTokens:
    """The tokens that enter block `block` (1 or more) of a VisionTransformer, as it computes them without drop path.

    Under jit what comes after that block is not computed.
    """
    return _tokens_leaving((block,), config, attention, params, images)[0]


def patches_after(
    blocks: Sequence[int],
    config: ViTConfig,
    attention: Attention,
    params: PyTree,
    images: Float[Array, "b height width 3"],
) -> tuple[Float[Array, "b h w d"], ...]:
    """The patches as they leave each of some blocks (1 is the first), through the final norm, float32; in one pass.

    The final norm is applied after every block, as DINOv2's `get_intermediate_layers` does; after the last one the
    patches are the backbone's own output.
    """
    norm = LastBlocks(config, attention, 0, config.depth)
    tokens = _tokens_leaving(blocks, config, attention, params, images)
    return tuple(cast(Array, norm.apply({"params": params}, of_block)) for of_block in tokens)


def _tokens_leaving(
    blocks: Sequence[int],
    config: ViTConfig,
    attention: Attention,
    params: PyTree,
    images: Float[Array, "b height width 3"],
) -> tuple[StoredTokens, ...]:
    names = [f"encoderblock_{block - 1}" for block in blocks]
    _, seen = VisionTransformer(config, attention).apply(
        {"params": params}, images, capture_intermediates=lambda module, _: module.name in names
    )
    height, width = (-(-side // config.patch_size) for side in images.shape[1:3])
    found = []
    for name in names:
        (tokens,) = seen["intermediates"]["Transformer"][name]["__call__"]
        leading, end = config.leading_tokens, config.leading_tokens + height * width
        patches = tokens[:, leading:end].reshape(tokens.shape[0], height, width, tokens.shape[2])
        found.append(StoredTokens(tokens[:, :leading], patches))
    return tuple(found)


class LastBlocks(nn.Module):
    """The blocks from `first` on and the final norm; its parameters are among those of the VisionTransformer.

    Attributes:
      config, attention, still: as in VisionTransformer.
      first: the first block that there is, 1 or more.
    """

    config: ViTConfig
    attention: Attention
    still: int
    first: int

    @nn.compact
    def __call__(self, tokens: StoredTokens, *, train: bool = False) -> Float[Array, "b h w d"]:
        """Tokens that enter block `first`, of any dtype, to final-normed patches in float32."""
        b, h, w, d = tokens.patches.shape
        flat = tokens.patches.reshape(b, h * w, d)
        x = jnp.concatenate([tokens.leading, flat], 1).astype(self.config.dtype)
        x = Encoder(self.config, self.attention, self.still, self.first, name="Transformer")(x, (h, w), train)
        return x[:, tokens.leading.shape[1] :].reshape(b, h, w, d).astype(jnp.float32)


def backbone_from(first: int, config: ViTConfig, attention: Attention, still: int) -> nn.Module:
    """The backbone that begins with block `first`, from the tokens that enter it; 0: with pictures."""
    if first:
        return LastBlocks(config, attention, still, first)
    return VisionTransformer(config, attention, still)


def patches_of(found: Tokens | Float[Array, "b h w d"]) -> Float[Array, "b h w d"]:
    """The patches of what either backbone has made."""
    return found.patches if isinstance(found, Tokens) else found
