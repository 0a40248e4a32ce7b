"""The pixel decoder with multi-scale deformable attention (Cheng et al. 2022, Mask2Former, section 3.3.1).

Letters: b pictures, h x w a map, n elements of all maps one after another, d width, e width of the masks.
"""

from __future__ import annotations

import jax.numpy as jnp
import numpy as np
from flax import linen as nn
from jaxtyping import Array, Float

from larvseg_jax.models.mask_decoder.deformable import DeformableAttention, Sides
from larvseg_jax.models.mask_decoder.fpn import SCALES, PixelDecoded
from larvseg_jax.models.mask_decoder.layers import FeedForward, convolution, group_norm, layer_norm
from larvseg_jax.models.mask_decoder.position import sine_position
from larvseg_jax.models.resize import resize_bilinear

POINTS = 4
"""Of a head on each map."""


class MsDeformPixelDecoder(nn.Module):
    """The coarsest three maps attend to each other, and one step of a feature pyramid makes the finest.

    Attributes:
      width: features of the scales; a multiple of the heads, and even.
      num_heads, mlp_dim: of a layer.
      layers: how many.
      mask_width: features of the mask features.
    """

    width: int
    num_heads: int
    mlp_dim: int
    layers: int
    mask_width: int

    @nn.compact
    def __call__(self, maps: tuple[Float[Array, "b _ _ _"], ...]) -> PixelDecoded:
        """Four maps of any widths, fine to coarse."""
        finest, *coarse = maps
        coarse.reverse()
        sides = tuple((x.shape[1], x.shape[2]) for x in coarse)
        x = jnp.concatenate([_flat(self._projected(i, part)) for i, part in enumerate(coarse)], 1)
        levels = self.param("level_embeddings", nn.initializers.normal(1.0), (SCALES, self.width))
        positions = jnp.concatenate(
            [
                sine_position(*side, self.width // 2).reshape(-1, self.width) + level[None]
                for side, level in zip(sides, levels, strict=True)
            ]
        )
        for i in range(self.layers):
            layer = DeformableLayer(self.num_heads, self.mlp_dim, name=f"layer_{i}")
            x = layer(x, positions[None], sides)
        ends = np.cumsum([h * w for h, w in sides])[:-1]
        parts = jnp.split(x, ends, 1)
        scales = tuple(part.reshape(-1, *side, self.width) for part, side in zip(parts, sides, strict=True))
        return PixelDecoded(scales, self._mask_features(finest, scales[-1]))

    def _projected(self, level: int, x: Float[Array, "b h w _"]) -> Float[Array, "b h w d"]:
        xavier = nn.initializers.xavier_uniform()
        x = nn.Conv(self.width, (1, 1), kernel_init=xavier, name=f"projection_{level}")(x)
        return group_norm(self.width, f"projection_norm_{level}")(x)

    def _mask_features(self, fine: Float[Array, "b H W _"], coarse: Float[Array, "b h w d"]) -> Float[Array, "b H W e"]:
        lateral = group_norm(self.width, "lateral_norm")(convolution(self.width, 1, "lateral", bias=False)(fine))
        x = lateral + resize_bilinear(coarse, (fine.shape[1], fine.shape[2]))
        x = convolution(self.width, 3, "output", bias=False)(x)
        return convolution(self.mask_width, 1, "mask_features", bias=True)(
            nn.relu(group_norm(self.width, "output_norm")(x))
        )


class DeformableLayer(nn.Module):
    """Deformable self-attention and MLP; each is added and normed (post-norm)."""

    num_heads: int
    mlp_dim: int

    @nn.compact
    def __call__(
        self, x: Float[Array, "b n d"], positions: Float[Array, "1 n d"], sides: Sides
    ) -> Float[Array, "b n d"]:
        attention = DeformableAttention(self.num_heads, POINTS, name="attention")
        x = layer_norm("attention_norm")(x + attention(x + positions, centres(sides), x, sides))
        return layer_norm("mlp_norm")(x + FeedForward(self.mlp_dim, name="mlp")(x))


def centres(sides: Sides) -> Float[np.ndarray, "n 2"]:
    """Where the elements of the maps are, (x, y) in widths and heights."""
    places = []
    for h, w in sides:
        y, x = np.mgrid[:h, :w]
        places.append(np.stack([(x.ravel() + 0.5) / w, (y.ravel() + 0.5) / h], -1))
    return np.concatenate(places).astype(np.float32)


def _flat(x: Float[Array, "b h w d"]) -> Float[Array, "b h*w d"]:
    return x.reshape(x.shape[0], -1, x.shape[-1])
