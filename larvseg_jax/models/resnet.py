"""ResNet-50 and -101: maps of four scales (He et al., 2016, with the stride in the 3x3 convolution, as torchvision).

Batch norms are frozen, as detectron2's: what is left of one is a scale and a shift per channel, which no gradient
reaches. Without pretrained weights they do nothing.
"""

from __future__ import annotations

import dataclasses
from typing import Literal, NamedTuple

import jax.numpy as jnp
from flax import linen as nn
from jax import lax
from jaxtyping import Array, Float

from larvseg_jax.options import Count

DType = Literal["float32", "bfloat16"]
_KERNEL = nn.initializers.variance_scaling(2.0, "fan_out", "normal")
_WIDER = 4  # a bottleneck's output over its inner width


@dataclasses.dataclass(frozen=True)
class ResNetConfig:
    """Sizes, by default those of ResNet-50; in an experiment of CEL the section `method.resnet`."""

    depths: tuple[Count, Count, Count, Count] = (3, 4, 6, 3)  # bottlenecks of each scale; ResNet-101: (3, 4, 23, 3)
    stem: Count = 64  # features of the first convolution
    width: Count = 64  # inner features of the first scale's bottlenecks; they double from scale to scale

    @property
    def widths(self) -> tuple[int, int, int, int]:
        """Features of the four maps."""
        first = _WIDER * self.width
        return first, 2 * first, 4 * first, 8 * first


class ResNetMaps(NamedTuple):
    """Float32 maps with a place for every 4, 8, 16, 32 pixels, rounded up."""

    res2: Float[Array, "b h2 w2 c2"]
    res3: Float[Array, "b h3 w3 c3"]
    res4: Float[Array, "b h4 w4 c4"]
    res5: Float[Array, "b h5 w5 c5"]


class ResNet(nn.Module):
    """Pictures, normalised by ImageNet's mean and std, to maps of four scales.

    Attributes:
      config: sizes.
      dtype: of the computation; parameters and maps stay float32.
    """

    config: ResNetConfig
    dtype: DType = "float32"

    @nn.compact
    def __call__(self, images: Float[Array, "b height width 3"]) -> ResNetMaps:
        """Any picture size."""
        cfg = self.config
        x = convolution(cfg.stem, 7, 2, self.dtype, "conv1")(images.astype(self.dtype))
        x = nn.relu(FrozenNorm(name="norm1")(x))
        x = nn.max_pool(x, (3, 3), (2, 2), ((1, 1), (1, 1)))
        maps = []
        for scale, depth in enumerate(cfg.depths):
            for i in range(depth):
                stride = 2 if scale and not i else 1
                x = Bottleneck(cfg.width * 2**scale, stride, self.dtype, name=f"layer{scale + 1}_{i}")(x)
            maps.append(x.astype(jnp.float32))
        return ResNetMaps(*maps)


class Bottleneck(nn.Module):
    """1x1, 3x3 with the stride, 1x1; what comes in is added, through a 1x1 where it has another shape."""

    width: int
    stride: int
    dtype: DType = "float32"

    @nn.compact
    def __call__(self, x: Float[Array, "b h w c"]) -> Float[Array, "b H W d"]:
        out, dtype = _WIDER * self.width, self.dtype
        y = nn.relu(FrozenNorm(name="norm1")(convolution(self.width, 1, 1, dtype, "conv1")(x)))
        y = nn.relu(FrozenNorm(name="norm2")(convolution(self.width, 3, self.stride, dtype, "conv2")(y)))
        y = FrozenNorm(name="norm3")(convolution(out, 1, 1, dtype, "conv3")(y))
        if self.stride != 1 or x.shape[-1] != out:
            x = FrozenNorm(name="shortcut_norm")(convolution(out, 1, self.stride, dtype, "shortcut")(x))
        return nn.relu(x + y)


class FrozenNorm(nn.Module):
    """scale * x + bias: a batch norm whose statistics and weights stay as they were read."""

    @nn.compact
    def __call__(self, x: Float[Array, "b h w c"]) -> Float[Array, "b h w c"]:
        scale = self.param("scale", nn.initializers.ones, (x.shape[-1],))
        bias = self.param("bias", nn.initializers.zeros, (x.shape[-1],))
        scale, bias = (lax.stop_gradient(of)[None, None, None].astype(x.dtype) for of in (scale, bias))
        return x * scale + bias


def convolution(features: int, size: int, stride: int, dtype: DType, name: str) -> nn.Conv:
    """Without bias; size // 2 zeros on every side, as PyTorch has them ("SAME" of JAX may pad one side only)."""
    pad = (size // 2, size // 2)
    return nn.Conv(
        features,
        (size, size),
        (stride, stride),
        (pad, pad),
        use_bias=False,
        dtype=jnp.dtype(dtype),
        kernel_init=_KERNEL,
        name=name,
    )
