"""A block of the transformer, and its parts."""

from __future__ import annotations

import functools
import math

import jax
import jax.numpy as jnp
from flax import linen as nn
from jax import lax
from jaxtyping import Array, Float

from larvseg_jax.models.attention import Attention, dot_product_attention
from larvseg_jax.models.vit_config import ViTConfig


class EncoderBlock(nn.Module):
    """Pre-norm block: x += DropPath(attention(LN(x))); x += DropPath(MLP(LN(x))), each scaled if layer_scale is on."""

    config: ViTConfig
    attention: Attention
    drop_path: float
    causal: bool = False
    real: int | None = None  # how many of the tokens are; those behind them only fill up (models/attention.py)

    @nn.compact
    def __call__(self, x: Float[Array, "b n d"], train: bool) -> Float[Array, "b n d"]:
        cfg = self.config

        def scaled(branch: Float[Array, "b n d"], name: str) -> Float[Array, "b n d"]:
            if not cfg.layer_scale:
                return branch
            # It begins small: DINOv2's training starts from 1e-5.
            scale = self.param(name, nn.initializers.constant(1e-5), branch.shape[-1:])
            return branch * scale.astype(branch.dtype)[None, None]

        y = layer_norm(x, cfg, "LayerNorm_0")
        y = SelfAttention(cfg, self.attention, self.causal, self.real, name="MultiHeadDotProductAttention_1")(y)
        x = x + DropPath(self.drop_path)(scaled(y, "attention_scale"), train)
        y = layer_norm(x, cfg, "LayerNorm_2")
        y = Mlp(cfg, name="MlpBlock_3")(y)
        return x + DropPath(self.drop_path)(scaled(y, "mlp_scale"), train)


class SelfAttention(nn.Module):
    """Multi-head self-attention; kernels (d, heads, head_dim) as in AugReg files.

    Causal: a token sees itself and those before it.
    """

    config: ViTConfig
    attention: Attention
    causal: bool = False
    real: int | None = None

    @nn.compact
    def __call__(self, x: Float[Array, "b n d"]) -> Float[Array, "b n d"]:
        cfg = self.config
        head_dim = cfg.width // cfg.num_heads

        def project(name: str) -> Float[Array, "b n k e"]:
            init = nn.initializers.xavier_uniform()
            return nn.DenseGeneral((cfg.num_heads, head_dim), dtype=jnp.dtype(cfg.dtype), kernel_init=init, name=name)(
                x
            )

        projected = project("query"), project("key"), project("value")
        mixed = dot_product_attention(*projected, self.attention, causal=self.causal, real=self.real)
        return nn.DenseGeneral(
            cfg.width,
            axis=(-2, -1),
            dtype=jnp.dtype(cfg.dtype),
            kernel_init=nn.initializers.xavier_uniform(),
            name="out",
        )(mixed)


class Mlp(nn.Module):
    """Two dense layers with the exact (erf) GELU or QuickGELU between; or with SwiGLU, silu(a) * b of two halves."""

    config: ViTConfig

    @nn.compact
    def __call__(self, x: Float[Array, "*batch d"]) -> Float[Array, "*batch d"]:
        dense = functools.partial(
            nn.Dense,
            dtype=jnp.dtype(self.config.dtype),
            kernel_init=nn.initializers.xavier_uniform(),
            bias_init=nn.initializers.normal(1e-6),
        )
        if self.config.mlp == "swiglu":
            gate, value = jnp.split(dense(2 * self.config.mlp_dim, name="Dense_0")(x), 2, -1)
            hidden = (nn.silu(gate.astype(jnp.float32)) * value.astype(jnp.float32)).astype(x.dtype)
        else:
            activation = quick_gelu if self.config.mlp == "quick_gelu" else gelu
            hidden = activation(dense(self.config.mlp_dim, name="Dense_0")(x))
        return dense(x.shape[-1], name="Dense_1")(hidden)


@jax.custom_vjp
def gelu(x: Float[Array, "*batch d"]) -> Float[Array, "*batch d"]:
    """x P(X < x) for a standard normal X (the exact GELU, with erf), in float32.

    Its gradient keeps x only. `nn.gelu` keeps two arrays more, of the largest size in the network.
    """
    wide = x.astype(jnp.float32)
    return (wide * _normal_cdf(wide)).astype(x.dtype)


def _gelu_gradient(x: Float[Array, "*batch d"], gradient: Float[Array, "*batch d"]) -> tuple[Float[Array, "*batch d"]]:
    wide = x.astype(jnp.float32)
    density = jnp.exp(-0.5 * jnp.square(wide)) * (2 * math.pi) ** -0.5
    return ((gradient.astype(jnp.float32) * (_normal_cdf(wide) + wide * density)).astype(x.dtype),)


gelu.defvjp(lambda x: (gelu(x), x), _gelu_gradient)


def _normal_cdf(x: Float[Array, "*batch d"]) -> Float[Array, "*batch d"]:
    return 0.5 + 0.5 * lax.erf(x * 2**-0.5)


def quick_gelu(x: Float[Array, "*batch d"]) -> Float[Array, "*batch d"]:
    """x sigmoid(1.702 x), CLIP's approximation of GELU, in float32."""
    wide = x.astype(jnp.float32)
    return (wide * jax.nn.sigmoid(1.702 * wide)).astype(x.dtype)


class DropPath(nn.Module):
    """Drops a whole residual branch per sample with probability `rate`; kept ones are scaled up."""

    rate: float

    @nn.compact
    def __call__(self, x: Float[Array, "b n d"], train: bool) -> Float[Array, "b n d"]:
        if not train or self.rate == 0.0:
            return x
        keep = jax.random.bernoulli(self.make_rng("drop_path"), 1.0 - self.rate, (x.shape[0], 1, 1))
        return jnp.where(keep, x / jnp.asarray(1.0 - self.rate, x.dtype), jnp.zeros_like(x))


def layer_norm(x: Float[Array, "*batch d"], config: ViTConfig, name: str) -> Float[Array, "*batch d"]:
    """Computed in float32, returned in the dtype of x."""
    return nn.LayerNorm(config.layer_norm_epsilon, name=name)(x.astype(jnp.float32)).astype(x.dtype)
