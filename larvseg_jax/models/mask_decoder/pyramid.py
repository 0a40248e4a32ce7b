"""Maps of four strides from the one map of a plain vision transformer (Li et al. 2022, ViTDet, section 3).

Letters: b pictures, h x w patch grid, d features.
"""

from __future__ import annotations

from typing import Literal

from flax import linen as nn
from jaxtyping import Array, Float

from larvseg_jax.models.blocks import gelu
from larvseg_jax.models.mask_decoder.layers import bounded_by

Maps = tuple[Float[Array, "b _ _ d"], ...]
"""Maps of the same pictures at several strides."""


class FeaturePyramid(nn.Module):
    """The simple feature pyramid: two upscalings, one, none, and a maximum over 2 x 2.

    `Original:` ViTDet adds a norm, a 3 x 3 convolution and another norm to each map; what reads the maps here, the
    pixel decoder, begins with its own. Of a grid with an odd side the last row or column is pooled alone, not lost.

    Attributes:
      width: features of the maps.
      finest: the side of a patch in elements of the finest map: 4, or 2, and then there are three maps.
    """

    width: int
    finest: Literal[2, 4] = 4

    @nn.compact
    def __call__(self, patches: Float[Array, "b h w d"]) -> tuple[Float[Array, "b _ _ {self.width}"], ...]:
        """Maps of strides patch/4, patch/2, patch and 2 patch, fine to coarse."""
        d = patches.shape[-1]
        maps = {}
        if self.finest == 4:
            # The quarter has a first upscaling of its own, as in the paper's code.
            quarter = nn.LayerNorm(1e-6, name="quarter_norm")(Upscaling(d // 2, name="quarter_0")(patches))
            maps["quarter"] = Upscaling(d // 4, name="quarter_1")(gelu(quarter))
        half = Upscaling(d // 2, name="half_0")(patches)
        maps |= {"half": half, "same": patches, "double": nn.max_pool(patches, (2, 2), (2, 2), "SAME")}
        xavier = nn.initializers.xavier_uniform()
        return tuple(nn.Dense(self.width, kernel_init=xavier, name=name)(x) for name, x in maps.items())


class Upscaling(nn.Module):
    """A transposed convolution with kernels and strides of 2 x 2: every element becomes four."""

    width: int

    @nn.compact
    def __call__(self, x: Float[Array, "b h w d"]) -> Float[Array, "b 2*h 2*w {self.width}"]:
        b, h, w, d = x.shape
        # Kernels do not overlap, so that it is a dense layer. PyTorch's fan-in of such weights are its outputs.
        init = bounded_by(4 * self.width)
        four = nn.DenseGeneral((2, 2, self.width), kernel_init=init, bias_init=init, name="kernel")(x)
        return four.transpose(0, 1, 3, 2, 4, 5).reshape(b, 2 * h, 2 * w, self.width)
