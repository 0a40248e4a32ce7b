"""Vision transformer (docs/method.md, section 2). The parameter tree has the names of the AugReg checkpoints."""

from __future__ import annotations

import dataclasses
import functools
import math
from typing import Literal, NamedTuple

import jax
import jax.numpy as jnp
from flax import linen as nn
from jax import lax
from jaxtyping import Array, Float

from larvseg_jax.errors import UserError
from larvseg_jax.models.attention import CpuAttention, dot_product_attention
from larvseg_jax.models.precision import exact_einsum
from larvseg_jax.models.resize import bicubic_matrix
from larvseg_jax.options import Count


@dataclasses.dataclass(frozen=True)
class ViTConfig:
    """The section `model`: sizes of the backbone, by default those of ViT-B/16."""

    width: Count = 768  # features of a token
    depth: Count = 12  # blocks
    num_heads: Count = 12
    mlp_dim: Count = 3072  # hidden width of the MLP of a block
    patch_size: Count = 16  # side of a patch, pixels
    image_size: Count = 512  # side of the pictures that the position embedding is stored for, pixels
    stem: Literal["patch", "conv"] = "patch"  # one patch convolution, or 3x3 ones that halve (better from scratch)
    drop_path: float = 0.0  # chance that the last block's branches are skipped; earlier blocks less
    dtype: Literal["float32", "bfloat16"] = "float32"  # of the backbone's computation; parameters stay float32
    remat: bool = False  # compute the blocks' activations again in the backward pass: less memory, more time
    layer_norm_epsilon: float = 1e-6  # added to the variance in every LayerNorm; AugReg weights: 1e-6

    def __post_init__(self) -> None:
        if self.width % self.num_heads:
            raise UserError(f"model.width={self.width} is not a multiple of model.num_heads={self.num_heads}")
        if self.stem == "conv" and self.patch_size.bit_count() != 1:
            raise UserError(f"model.patch_size={self.patch_size}: the conv stem halves, so it must be a power of 2")
        if not 0 < self.layer_norm_epsilon < math.inf:
            raise UserError(
                f"model.layer_norm_epsilon is {self.layer_norm_epsilon}: use a number above 0, such as 1e-6"
            )

    @property
    def stored_grid(self) -> tuple[int, int]:
        """Patch grid that the position embedding is stored for."""
        side = -(-self.image_size // self.patch_size)
        return side, side


class Tokens(NamedTuple):
    """What the backbone says of pictures: float32, after the final norm.

    Attributes:
      cls: the class token, one vector per picture.
      patches: one vector per patch.
    """

    cls: Float[Array, "b d"]
    patches: Float[Array, "b h w d"]


class VisionTransformer(nn.Module):
    """Images to final-normed tokens.

    Attributes:
      config: sizes.
      attention: how a CPU computes attention (models/attention.py); "head_by_head" is for one device only.
      still: how many of the first blocks have no drop path, being frozen with all below them (models/frozen.py).
    """

    config: ViTConfig
    attention: CpuAttention = "all_heads"
    still: int = 0

    @nn.compact
    def __call__(self, images: Float[Array, "b height width 3"], *, train: bool = False) -> Tokens:
        """Any picture size: padded at the bottom and right with zeros (= the mean colour) to whole patches.

        With train=True a "drop_path" random key is needed. Returns float32 whatever the compute dtype.
        """
        cfg = self.config
        dtype = jnp.dtype(cfg.dtype)
        tokens = Embedding(cfg, name="embedding" if cfg.stem == "patch" else "stem")(
            _pad_to_patches(images, cfg.patch_size).astype(dtype)
        )
        b, h, w, d = tokens.shape
        cls = self.param("cls", nn.initializers.zeros, (1, 1, d))
        tokens = jnp.concatenate([jnp.broadcast_to(cls.astype(dtype), (b, 1, d)), tokens.reshape(b, h * w, d)], 1)
        tokens = Encoder(cfg, self.attention, self.still, name="Transformer")(tokens, (h, w), train)
        cls, patches = tokens[:, 0], tokens[:, 1:].reshape(b, h, w, d)
        return Tokens(cls.astype(jnp.float32), patches.astype(jnp.float32))


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
            bias = self.param("bias", nn.initializers.zeros, (cfg.width,))
            # A convolution whose stride is its size is a matrix product over unfolded patches.
            patches = images.reshape(b, height // p, p, width // p, p, c).transpose(0, 1, 3, 2, 4, 5)
            flat = patches.reshape(b, height // p, width // p, p * p * c)
            return flat @ kernel.reshape(p * p * c, cfg.width).astype(dtype) + bias.astype(dtype)[None, None, None]
        halvings = cfg.patch_size.bit_length() - 1
        x = images
        for i in range(halvings):
            features = cfg.width >> (halvings - 1 - i)
            x = nn.Conv(features, (3, 3), (2, 2), dtype=dtype, name=f"conv_{i}")(x)
            x = _layer_norm(x, cfg, f"norm_{i}")
            x = gelu(x)
        return nn.Dense(cfg.width, dtype=dtype, name="out")(x)


class Encoder(nn.Module):
    """Position embedding, the blocks, the final norm; of tokens that enter block `first`, what follows from there."""

    config: ViTConfig
    attention: CpuAttention
    still: int = 0
    first: int = 0

    @nn.compact
    def __call__(self, tokens: Float[Array, "b n d"], grid: tuple[int, int], train: bool) -> Float[Array, "b n d"]:
        cfg = self.config
        x = tokens if self.first else PositionEmbedding(cfg, name="posembed_input")(tokens, grid)
        block = nn.remat(EncoderBlock, static_argnums=(2,)) if cfg.remat else EncoderBlock
        for i in range(self.first, cfg.depth):
            rate = 0.0 if i < self.still else cfg.drop_path * i / max(cfg.depth - 1, 1)
            x = block(cfg, self.attention, rate, name=f"encoderblock_{i}")(x, train)
        return _layer_norm(x, cfg, "encoder_norm")


class PositionEmbedding(nn.Module):
    """Adds the learned embedding, resized whenever the grid is not the stored one.

    `Original:` resized only when the number of tokens differs, so a 4x6 embedding serves a 6x4 picture.
    """

    config: ViTConfig

    @nn.compact
    def __call__(self, tokens: Float[Array, "b n d"], grid: tuple[int, int]) -> Float[Array, "b n d"]:
        stored = self.config.stored_grid
        shape = (1, 1 + stored[0] * stored[1], tokens.shape[-1])
        embedding = self.param("pos_embedding", nn.initializers.normal(0.02), shape)
        return tokens + resize_position_embedding(embedding, stored, grid).astype(tokens.dtype)


def resize_position_embedding(
    embedding: Float[Array, "1 n d"], old: tuple[int, int], new: tuple[int, int]
) -> Float[Array, "1 m d"]:
    """Bicubic, a = -0.75, no antialiasing (method 2); the class token's entry is kept as it is."""
    if old == new:
        return embedding
    grid = embedding[0, 1:].reshape(*old, -1)
    rows, columns = bicubic_matrix(old[0], new[0]), bicubic_matrix(old[1], new[1])
    grid = exact_einsum("Hh,hwd,Ww->HWd", rows, grid, columns)
    return jnp.concatenate([embedding[:, :1], grid.reshape(1, -1, embedding.shape[-1])], 1)


class EncoderBlock(nn.Module):
    """Pre-norm block: x += DropPath(attention(LN(x))); x += DropPath(MLP(LN(x)))."""

    config: ViTConfig
    attention: CpuAttention
    drop_path: float

    @nn.compact
    def __call__(self, x: Float[Array, "b n d"], train: bool) -> Float[Array, "b n d"]:
        cfg = self.config
        y = _layer_norm(x, cfg, "LayerNorm_0")
        y = SelfAttention(cfg, self.attention, name="MultiHeadDotProductAttention_1")(y)
        x = x + DropPath(self.drop_path)(y, train)
        y = _layer_norm(x, cfg, "LayerNorm_2")
        y = Mlp(cfg, name="MlpBlock_3")(y)
        return x + DropPath(self.drop_path)(y, train)


class SelfAttention(nn.Module):
    """Multi-head self-attention; kernels (d, heads, head_dim) as in AugReg files."""

    config: ViTConfig
    attention: CpuAttention

    @nn.compact
    def __call__(self, x: Float[Array, "b n d"]) -> Float[Array, "b n d"]:
        cfg = self.config
        head_dim = cfg.width // cfg.num_heads

        def project(name: str) -> Float[Array, "b n k e"]:
            init = nn.initializers.xavier_uniform()
            return nn.DenseGeneral((cfg.num_heads, head_dim), dtype=jnp.dtype(cfg.dtype), kernel_init=init, name=name)(
                x
            )

        mixed = dot_product_attention(project("query"), project("key"), project("value"), self.attention)
        return nn.DenseGeneral(
            cfg.width,
            axis=(-2, -1),
            dtype=jnp.dtype(cfg.dtype),
            kernel_init=nn.initializers.xavier_uniform(),
            name="out",
        )(mixed)


class Mlp(nn.Module):
    """Two dense layers with the exact (erf) GELU between."""

    config: ViTConfig

    @nn.compact
    def __call__(self, x: Float[Array, "b n d"]) -> Float[Array, "b n d"]:
        dense = functools.partial(
            nn.Dense,
            dtype=jnp.dtype(self.config.dtype),
            kernel_init=nn.initializers.xavier_uniform(),
            bias_init=nn.initializers.normal(1e-6),
        )
        y = dense(self.config.mlp_dim, name="Dense_0")(x)
        return dense(x.shape[-1], name="Dense_1")(gelu(y))


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


class DropPath(nn.Module):
    """Drops a whole residual branch per sample with probability `rate`; kept ones are scaled up."""

    rate: float

    @nn.compact
    def __call__(self, x: Float[Array, "b n d"], train: bool) -> Float[Array, "b n d"]:
        if not train or self.rate == 0.0:
            return x
        keep = jax.random.bernoulli(self.make_rng("drop_path"), 1.0 - self.rate, (x.shape[0], 1, 1))
        return jnp.where(keep, x / jnp.asarray(1.0 - self.rate, x.dtype), jnp.zeros_like(x))


def _layer_norm(x: Float[Array, "*batch d"], config: ViTConfig, name: str) -> Float[Array, "*batch d"]:
    """Computed in float32, returned in the dtype of x."""
    return nn.LayerNorm(config.layer_norm_epsilon, name=name)(x.astype(jnp.float32)).astype(x.dtype)


def _pad_to_patches(images: Float[Array, "b height width 3"], patch: int) -> Float[Array, "b H W 3"]:
    _, height, width, _ = images.shape
    return jnp.pad(images, ((0, 0), (0, -height % patch), (0, -width % patch), (0, 0)))
