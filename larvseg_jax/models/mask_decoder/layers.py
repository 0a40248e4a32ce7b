"""Parts that the mask decoder and the pixel decoders share.

Letters: b pictures, n positions, d width.
"""

from __future__ import annotations

import math

import jax
import jax.numpy as jnp
from flax import linen as nn
from jax.nn.initializers import Initializer
from jaxtyping import Array, Float

_GROUPS = 32
_EPSILON = 1e-5


def bounded_by(fan_in: int) -> Initializer:
    """Uniform within 1 / sqrt(fan_in): PyTorch's default for weights and biases of a layer of so many inputs."""
    bound = fan_in**-0.5
    return lambda key, shape, dtype=jnp.float32, _sharding=None: jax.random.uniform(key, shape, dtype, -bound, bound)


def layer_norm(name: str) -> nn.LayerNorm:
    """PyTorch's, over the features."""
    return nn.LayerNorm(_EPSILON, name=name)


def group_norm(width: int, name: str) -> nn.GroupNorm:
    """Over each picture's groups of features: 32, as Mask2Former has it, or as many of those as divide the width."""
    return nn.GroupNorm(math.gcd(_GROUPS, width), epsilon=_EPSILON, use_fast_variance=False, name=name)


def convolution(width: int, side: int, name: str, *, bias: bool) -> nn.Conv:
    """Of kernels side x side, the map's size kept; drawn as Mask2Former draws those of its pixel decoders."""
    return nn.Conv(width, (side, side), use_bias=bias, kernel_init=nn.initializers.lecun_uniform(), name=name)


class FeedForward(nn.Module):
    """Two dense layers with a ReLU between."""

    hidden: int

    @nn.compact
    def __call__(self, x: Float[Array, "b n d"]) -> Float[Array, "b n d"]:
        xavier = nn.initializers.xavier_uniform()
        d = x.shape[-1]
        inner = nn.Dense(self.hidden, kernel_init=xavier, bias_init=bounded_by(d), name="Dense_0")(x)
        return nn.Dense(d, kernel_init=xavier, bias_init=bounded_by(self.hidden), name="Dense_1")(nn.relu(inner))
