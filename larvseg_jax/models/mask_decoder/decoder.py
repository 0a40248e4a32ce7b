"""The decoder with masked attention (Cheng et al. 2022, Mask2Former, section 3.2; CEL uses it as it is).

Letters: o outputs, b pictures, q queries, n positions of a map, H x W the mask features' grid, d width, e width of the
masks, k heads.
"""

from __future__ import annotations

from typing import NamedTuple

import jax
import jax.numpy as jnp
from flax import linen as nn
from jaxtyping import Array, Bool, Float

from larvseg_jax.models.mask_decoder.fpn import SCALES
from larvseg_jax.models.mask_decoder.layers import FeedForward, bounded_by, layer_norm
from larvseg_jax.models.mask_decoder.position import sine_position
from larvseg_jax.models.precision import precise_einsum
from larvseg_jax.models.resize import bilinear_matrix


class Decoded(NamedTuple):
    """What the queries say of pictures, before the first layer and after each one: o = layers + 1.

    Attributes:
      states: the queries' vectors after the decoder's norm; a class head reads them.
      mask_vectors: whose products with the mask features are the queries' masks.
      mask_features: of the pictures.
    """

    states: Float[Array, "o b q d"]
    mask_vectors: Float[Array, "o b q e"]
    mask_features: Float[Array, "b H W e"]

    @property
    def masks(self) -> Float[Array, "o b q H W"]:
        """Logits of the queries' masks."""
        return masks_of(self.mask_vectors, self.mask_features)


def masks_of(vectors: Float[Array, "o b q e"], features: Float[Array, "b H W e"]) -> Float[Array, "o b q H W"]:
    """Logits of masks: one product for all outputs; inner ones that nobody asks for are not computed."""
    return precise_einsum("obqe,bhwe->obqhw", vectors, features)


class MaskedDecoder(nn.Module):
    """Learned queries that gather from one map after another, each within its own mask.

    Attributes:
      width, num_heads, mlp_dim: of a layer; the width is a multiple of the heads, and even.
      layers: how many; layer i attends to map i modulo 3.
      queries: how many.
      mask_width: features of the mask features.
    """

    width: int
    num_heads: int
    mlp_dim: int
    layers: int
    queries: int
    mask_width: int

    @nn.compact
    def __call__(
        self, scales: tuple[Float[Array, "b _ _ {self.width}"], ...], mask_features: Float[Array, "b H W e"]
    ) -> Decoded:
        """Three maps, the coarsest first, and the map that masks are made of (`PixelDecoded`)."""
        b, d = mask_features.shape[0], self.width
        normal = nn.initializers.normal(1.0)
        x = self.param("query_features", normal, (self.queries, d))
        x = jnp.broadcast_to(x[None], (b, *x.shape))
        positions = self.param("query_positions", normal, (self.queries, d))[None]
        levels = self.param("level_embeddings", normal, (SCALES, d))
        sources = [_Source.of(scale, level, mask_features) for scale, level in zip(scales, levels, strict=True)]
        norm, mask_mlp = layer_norm("norm"), MaskMlp(self.mask_width, name="mask_mlp")
        states = [norm(x)]
        vectors = [mask_mlp(states[0])]
        for i in range(self.layers):
            source = sources[i % SCALES]
            allowed = attended(vectors[-1], source.mask_features)
            x = DecoderLayer(self.num_heads, self.mlp_dim, name=f"layer_{i}")(x, positions, source, allowed)
            states.append(norm(x))
            vectors.append(mask_mlp(states[-1]))
        return Decoded(jnp.stack(states), jnp.stack(vectors), mask_features)


class _Source(NamedTuple):
    """A map as a layer reads it.

    Attributes:
      values: the map and its level's embedding.
      keys: and the position besides.
      mask_features: on the map's grid.
    """

    values: Float[Array, "b n d"]
    keys: Float[Array, "b n d"]
    mask_features: Float[Array, "b n e"]

    @classmethod
    def of(cls, scale: Float[Array, "b h w d"], level: Float[Array, " d"], fine: Float[Array, "b H W e"]) -> _Source:
        b, h, w, d = scale.shape
        values = scale + level[None, None, None]
        keys = values + sine_position(h, w, d // 2)[None]
        rows, columns = bilinear_matrix(fine.shape[1], h), bilinear_matrix(fine.shape[2], w)
        coarse = precise_einsum("hH,bHWe->bhWe", rows, fine)
        coarse = precise_einsum("wW,bhWe->bhwe", columns, coarse)
        return cls(*(x.reshape(b, h * w, x.shape[-1]) for x in (values, keys, coarse)))


def attended(vectors: Float[Array, "b q e"], mask_features: Float[Array, "b n e"]) -> Bool[Array, "b q n"]:
    """Where a query may look: where its mask is at least 1/2; everywhere if that is nowhere. No gradient.

    The paper resizes masks. A mask is linear in the features, and resized features are fewer.
    """
    logits = precise_einsum("bqe,bne->bqn", vectors, mask_features)
    inside = logits >= 0
    return inside | ~jnp.any(inside, -1, keepdims=True)


class DecoderLayer(nn.Module):
    """Masked cross-attention, self-attention, MLP; each is added and normed (post-norm)."""

    num_heads: int
    mlp_dim: int

    @nn.compact
    def __call__(
        self,
        x: Float[Array, "b q d"],
        positions: Float[Array, "1 q d"],
        source: _Source,
        allowed: Bool[Array, "b q n"],
    ) -> Float[Array, "b q d"]:
        across = Attention(self.num_heads, name="cross_attention")(x + positions, source.keys, source.values, allowed)
        x = layer_norm("cross_norm")(x + across)
        placed = x + positions
        x = layer_norm("self_norm")(x + Attention(self.num_heads, name="self_attention")(placed, placed, x, None))
        return layer_norm("mlp_norm")(x + FeedForward(self.mlp_dim, name="mlp")(x))


class Attention(nn.Module):
    """Multi-head attention whose queries, keys and values are told apart; kernels (d, heads, head_dim)."""

    num_heads: int

    @nn.compact
    def __call__(
        self,
        queries: Float[Array, "b q d"],
        keys: Float[Array, "b n d"],
        values: Float[Array, "b n d"],
        allowed: Bool[Array, "b q n"] | None,
    ) -> Float[Array, "b q d"]:
        """Each query looks where it is allowed to, which must be somewhere; None: everywhere."""
        d = queries.shape[-1]
        # Xavier's of the one matrix (d, 3 d) that PyTorch stores the three in.
        init = nn.initializers.variance_scaling(0.5, "fan_in", "uniform")

        def project(x: Float[Array, "b n d"], name: str) -> Float[Array, "b n k e"]:
            return nn.DenseGeneral((self.num_heads, d // self.num_heads), kernel_init=init, name=name)(x)

        projected = project(queries, "query"), project(keys, "key"), project(values, "value")
        mixed = jax.nn.dot_product_attention(*projected, mask=None if allowed is None else allowed[:, None])
        return nn.DenseGeneral(d, axis=(-2, -1), kernel_init=nn.initializers.xavier_uniform(), name="out")(mixed)


class MaskMlp(nn.Module):
    """Three dense layers with ReLUs between: a query's vector, whose products with the mask features are its mask."""

    mask_width: int

    @nn.compact
    def __call__(self, x: Float[Array, "b q d"]) -> Float[Array, "b q {self.mask_width}"]:
        init, d = bounded_by(x.shape[-1]), x.shape[-1]
        for i in range(2):
            x = nn.relu(nn.Dense(d, kernel_init=init, bias_init=init, name=f"Dense_{i}")(x))
        return nn.Dense(self.mask_width, kernel_init=init, bias_init=init, name="Dense_2")(x)
