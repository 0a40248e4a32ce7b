"""Weights of Mask2Former's decoders as Hugging Face's transformers names them, under our names."""

from __future__ import annotations

import re
from collections.abc import Mapping

import numpy as np
from flax import traverse_util

_DECODER = (
    (r"queries_embedder\.weight", "query_positions"),
    (r"queries_features\.weight", "query_features"),
    (r"level_embed\.weight", "level_embeddings"),
    (r"decoder\.layernorm\.", "norm/"),
    (r"decoder\.mask_predictor\.mask_embedder\.(\d)\.0\.", r"mask_mlp/Dense_\1/"),
    (r"decoder\.layers\.(\d+)\.self_attn\.", r"layer_\1/self_attention/"),
    (r"decoder\.layers\.(\d+)\.cross_attn\.", r"layer_\1/cross_attention/"),
    (r"decoder\.layers\.(\d+)\.self_attn_layer_norm\.", r"layer_\1/self_norm/"),
    (r"decoder\.layers\.(\d+)\.cross_attn_layer_norm\.", r"layer_\1/cross_norm/"),
    (r"decoder\.layers\.(\d+)\.final_layer_norm\.", r"layer_\1/mlp_norm/"),
    (r"decoder\.layers\.(\d+)\.fc1\.", r"layer_\1/mlp/Dense_0/"),
    (r"decoder\.layers\.(\d+)\.fc2\.", r"layer_\1/mlp/Dense_1/"),
)
_PIXEL_DECODER = (
    (r"level_embed", "level_embeddings"),
    (r"input_projections\.(\d)\.0\.", r"projection_\1/"),
    (r"input_projections\.(\d)\.1\.", r"projection_norm_\1/"),
    (r"encoder\.layers\.(\d+)\.self_attn\.sampling_offsets\.", r"layer_\1/attention/offsets/"),
    (r"encoder\.layers\.(\d+)\.self_attn\.attention_weights\.", r"layer_\1/attention/weights/"),
    (r"encoder\.layers\.(\d+)\.self_attn\.value_proj\.", r"layer_\1/attention/values/"),
    (r"encoder\.layers\.(\d+)\.self_attn\.output_proj\.", r"layer_\1/attention/mixed/"),
    (r"encoder\.layers\.(\d+)\.self_attn_layer_norm\.", r"layer_\1/attention_norm/"),
    (r"encoder\.layers\.(\d+)\.final_layer_norm\.", r"layer_\1/mlp_norm/"),
    (r"encoder\.layers\.(\d+)\.fc1\.", r"layer_\1/mlp/Dense_0/"),
    (r"encoder\.layers\.(\d+)\.fc2\.", r"layer_\1/mlp/Dense_1/"),
    (r"adapter_1\.0\.", "lateral/"),
    (r"adapter_1\.1\.", "lateral_norm/"),
    (r"layer_1\.0\.", "output/"),
    (r"layer_1\.1\.", "output_norm/"),
    (r"mask_projection\.", "mask_features/"),
)


def decoder_parameters(arrays: Mapping[str, np.ndarray], num_heads: int) -> dict:
    """The parameters of MaskedDecoder out of a Mask2FormerTransformerModule's arrays.

    Raises:
      ValueError: an array whose name the decoder does not know.
    """
    return _parameters(arrays, _DECODER, num_heads)


def pixel_decoder_parameters(arrays: Mapping[str, np.ndarray]) -> dict:
    """The parameters of MsDeformPixelDecoder out of a Mask2FormerPixelDecoder's arrays.

    Raises:
      ValueError: an array whose name the pixel decoder does not know.
    """
    return _parameters(arrays, _PIXEL_DECODER, 1)


def _parameters(arrays: Mapping[str, np.ndarray], table: tuple[tuple[str, str], ...], num_heads: int) -> dict:
    flat = {}
    for name, value in _unstacked(arrays).items():
        ours = _our_name(name, value, table)
        flat[ours] = _our_layout(ours, value, num_heads)
    return traverse_util.unflatten_dict(flat, sep="/")


def _unstacked(arrays: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
    """Cross-attention stores query, key and value as one matrix, self-attention as three."""
    apart: dict[str, np.ndarray] = {}
    for name, value in arrays.items():
        module, stacked, kind = name.partition("in_proj_")
        if stacked:
            apart |= {f"{module}{x}_proj.{kind}": part for x, part in zip("qkv", np.split(value, 3), strict=True)}
        else:
            apart[name] = value
    return apart


def _our_name(name: str, value: np.ndarray, table: tuple[tuple[str, str], ...]) -> str:
    for theirs, ours in table:
        found = re.match(theirs, name)
        if found:
            module, rest = found.expand(ours), name[found.end() :]
            for x in ("query", "key", "value"):
                rest = rest.replace(f"{x[0]}_proj.", f"{x}/")
            rest = rest.replace("out_proj.", "out/")
            leaf = "scale" if "norm" in module else "kernel" if value.ndim > 1 else "bias"
            return module + rest.replace("weight", leaf)
    raise ValueError(f"{name} is none of Mask2Former's arrays")


def _our_layout(name: str, value: np.ndarray, num_heads: int) -> np.ndarray:
    """Linear (out, in) and convolutions (out, in, height, width) to ours; query, key and value by heads."""
    module, _, leaf = name.rpartition("/")
    if leaf == "bias" and module.endswith(("/query", "/key", "/value")):
        return value.reshape(num_heads, -1)
    if leaf != "kernel":
        return value
    if value.ndim == 4:
        return value.transpose(2, 3, 1, 0)
    if module.endswith(("/query", "/key", "/value")):
        return value.T.reshape(value.shape[1], num_heads, -1)
    if module.endswith("_attention/out"):
        return value.T.reshape(num_heads, -1, value.shape[0])
    return value.T
