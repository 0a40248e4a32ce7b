"""Features of every patch out of CLIP's image tower without training (MaskCLIP: Zhou et al., ECCV 2022, section 3).

The last block mixes patches by attention, of which only the class token was trained to be compared with texts. Its
values, each of one patch alone, stay comparable.
"""

from __future__ import annotations

import dataclasses
from typing import Literal, NamedTuple, cast

import jax
import jax.numpy as jnp
from flax import linen as nn
from jaxtyping import Array, Float, PyTree

from larvseg_jax.models.attention import Attention
from larvseg_jax.models.blocks import Mlp
from larvseg_jax.models.clip import normalised
from larvseg_jax.models.partial import tokens_entering
from larvseg_jax.models.precision import precise_einsum
from larvseg_jax.models.vit import Tokens, VisionTransformer
from larvseg_jax.models.vit_config import ViTConfig

DenseFeatures = Literal["value", "value_block", "tokens"]
KeySmoothing = Literal["off", "channels", "tokens", "repository"]

_ATTENTION = "MultiHeadDotProductAttention_1"  # its name in a block


class DenseTokens(NamedTuple):
    """What the image tower says of patches.

    Attributes:
      patches: after the final norm, before the projection to the common space.
      keys: of the last block, all heads side by side.
      keys_projected: the same through the attention's output projection.
    """

    patches: Float[Array, "b h w e"]
    keys: Float[Array, "b h w e"]
    keys_projected: Float[Array, "b h w e"]


def dense_tokens(
    features: DenseFeatures,
    config: ViTConfig,
    attention: Attention,
    params: PyTree,
    images: Float[Array, "b height width 3"],
) -> DenseTokens:
    """Patches of pictures of any size, by one of three readings of the last block.

    With x what enters it, v its values and o its output projection:
    value: LN(o(v)), MaskCLIP's paper; value_block: LN(z + MLP(LN z)) for z = x + o(v), MaskCLIP's code for a ViT;
    tokens: LN(block(x)), the tower as it is.

    Args:
      features: which.
      config, attention: of the backbone, which has two blocks or more.
      params: of the backbone.
      images: normalised as batches are.
    """
    block = params["Transformer"][f"encoderblock_{config.depth - 1}"]
    entering = tokens_entering(config.depth - 1, config, attention, params, images).patches.astype(jnp.float32)
    normed = _norm(block["LayerNorm_0"], entering, config)
    keys = _projected(block[_ATTENTION]["key"], normed)
    if features == "tokens":
        patches = cast(Tokens, VisionTransformer(config, attention).apply({"params": params}, images)).patches
    else:
        patches = _out(block[_ATTENTION]["out"], _projected(block[_ATTENTION]["value"], normed))
        if features == "value_block":
            patches = entering + patches
            hidden = _norm(block["LayerNorm_2"], patches, config)
            patches += cast(
                Array, Mlp(dataclasses.replace(config, dtype="float32")).apply({"params": block["MlpBlock_3"]}, hidden)
            )
        patches = _norm(params["Transformer"]["encoder_norm"], patches, config)
    return DenseTokens(patches, keys.reshape(*keys.shape[:3], -1), _out(block[_ATTENTION]["out"], keys))


def denoised(
    cosines: Float[Array, "b h w n"], probabilities: Float[Array, "b h w n"], threshold: float
) -> Float[Array, "b h w n"]:
    """Prompt denoising: a class whose best probability in a picture is below the threshold gets -100."""
    best = jnp.max(probabilities, axis=(1, 2), keepdims=True)
    return jnp.where(best < threshold, -100.0, cosines)


def smoothed(
    probabilities: Float[Array, "b h w n"], tokens: DenseTokens, how: KeySmoothing, below: float
) -> Float[Array, "b h w n"]:
    """Key smoothing: patches that are sure of no class get sum_j <k_i, k_j> p_j, the keys k normalised.

    Args:
      probabilities: of the classes at each patch.
      tokens: of the same pictures.
      how: what the keys' norm goes over: "channels", the features of a patch, "tokens", the patches of a picture, or
        "repository", as in MaskCLIP's code: the patches, of keys that went through the output projection.
      below: only patches whose best probability is below this change.
    """
    b, h, w, n = probabilities.shape
    keys = (tokens.keys_projected if how == "repository" else tokens.keys).reshape(b, h * w, -1)
    keys = normalised(keys) if how == "channels" else jnp.swapaxes(normalised(jnp.swapaxes(keys, 1, 2)), 1, 2)
    flat = probabilities.reshape(b, h * w, n)
    mixed = precise_einsum("bid,bjd,bjn->bin", keys, keys, flat)
    unsure = jnp.max(flat, axis=-1, keepdims=True) < below
    return jnp.where(unsure, mixed, flat).reshape(b, h, w, n)


def _norm(params: PyTree, x: Float[Array, "b h w e"], config: ViTConfig) -> Float[Array, "b h w e"]:
    return cast(Array, nn.LayerNorm(config.layer_norm_epsilon).apply({"params": params}, x))


def _projected(params: PyTree, x: Float[Array, "b h w e"]) -> Float[Array, "b h w k f"]:
    """Keys or values: of every head k its features f."""
    return precise_einsum("bhwe,ekf->bhwkf", x, params["kernel"]) + params["bias"][None, None, None]


def _out(params: PyTree, x: Float[Array, "b h w k f"]) -> Float[Array, "b h w e"]:
    return precise_einsum("bhwkf,kfe->bhwe", x, params["kernel"]) + params["bias"][None, None, None]


def probabilities_of(cosines: Float[Array, "b h w n"], scale: float) -> Float[Array, "b h w n"]:
    """softmax over the classes of scaled cosines."""
    return jax.nn.softmax(scale * cosines)
