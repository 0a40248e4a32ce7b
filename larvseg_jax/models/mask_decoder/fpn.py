"""The pixel decoder without attention: a feature pyramid network (Lin et al. 2017), as Mask2Former's base decoder.

Letters: b pictures, h x w a map, d width, e width of the masks.
"""

from __future__ import annotations

from typing import NamedTuple

from flax import linen as nn
from jaxtyping import Array, Float

from larvseg_jax.models.mask_decoder.layers import convolution, group_norm
from larvseg_jax.models.resize import nearest_indices

SCALES = 3
"""How many maps the mask decoder attends to."""


class PixelDecoded(NamedTuple):
    """What a pixel decoder hands to the mask decoder.

    Attributes:
      scales: three maps (b, h, w, d), the coarsest first.
      mask_features: the finest map, whose products with the queries' vectors are the masks.
    """

    scales: tuple[Float[Array, "b _ _ d"], ...]
    mask_features: Float[Array, "b h w e"]


class FpnPixelDecoder(nn.Module):
    """Coarse to fine: each map gets what stands above it, upscaled, and is convolved.

    Attributes:
      width: features of the scales.
      mask_width: features of the mask features.
    """

    width: int
    mask_width: int

    @nn.compact
    def __call__(self, maps: tuple[Float[Array, "b _ _ _"], ...]) -> PixelDecoded:
        """Maps of any widths, fine to coarse, four as FeaturePyramid has them (three at least)."""
        finest = len(maps) - 1
        decoded: list[Array] = []
        for i, x in enumerate(reversed(maps)):
            if i:
                x = convolution(self.width, 1, f"lateral_{i}", bias=False)(x)
                x = group_norm(self.width, f"lateral_norm_{i}")(x) + _upscaled(decoded[-1], x)
            x = convolution(self.width, 3, f"output_{i}", bias=False)(x)
            decoded.append(nn.relu(group_norm(self.width, f"output_norm_{i}")(x)))
        return PixelDecoded(
            tuple(decoded[:SCALES]), convolution(self.mask_width, 3, "mask_features", bias=True)(decoded[finest])
        )


def _upscaled(coarse: Float[Array, "b h w d"], like: Float[Array, "b H W _"]) -> Float[Array, "b H W d"]:
    """To the other map's size, each element from the nearest."""
    rows = nearest_indices(coarse.shape[1], like.shape[1])
    return coarse[:, rows][:, :, nearest_indices(coarse.shape[2], like.shape[2])]
