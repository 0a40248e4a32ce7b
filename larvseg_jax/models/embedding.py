"""From pictures to the tokens of their patches."""

from __future__ import annotations

import jax.numpy as jnp
from flax import linen as nn
from jaxtyping import Array, Float

from larvseg_jax.models.blocks import gelu, layer_norm
from larvseg_jax.models.vit_config import ViTConfig


class Embedding(nn.Module):
    """Pictures to patch tokens: the patch convolution, or a stack of 3x3 ones that halve the grid."""

    config: ViTConfig

    @nn.compact
    def __call__(self, images: Float[Array, "b height width 3"]) -> Float[Array, "b h w d"]:
        cfg = self.config
        dtype = jnp.dtype(cfg.dtype)
        if cfg.stem == "patch":
            p = cfg.patch_size
            b, height, width, c = images.shape
            kernel = self.param("kernel", nn.initializers.lecun_normal(), (p, p, c, cfg.width))
            # A convolution whose stride is its size is a matrix product over unfolded patches.
            patches = images.reshape(b, height // p, p, width // p, p, c).transpose(0, 1, 3, 2, 4, 5)
            flat = patches.reshape(b, height // p, width // p, p * p * c)
            tokens = flat @ kernel.reshape(p * p * c, cfg.width).astype(dtype)
            if not cfg.patch_bias:
                return tokens
            bias = self.param("bias", nn.initializers.zeros, (cfg.width,))
            return tokens + bias.astype(dtype)[None, None, None]
        halvings = cfg.patch_size.bit_length() - 1
        x = images
        for i in range(halvings):
            features = cfg.width >> (halvings - 1 - i)
            x = nn.Conv(features, (3, 3), (2, 2), dtype=dtype, name=f"conv_{i}")(x)
            x = layer_norm(x, cfg, f"norm_{i}")
            x = gelu(x)
        return nn.Dense(cfg.width, dtype=dtype, name="out")(x)
