"""CLIP's weights under our names: OpenAI's archives, open_clip's and Hugging Face's files (docs/clip.md).

Each name says by itself what it means, so that both spellings are read alike. Linear weights are (out, in) but for
OpenAI's two projections, which are (in, out).
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Any, Literal, NamedTuple

import numpy as np

from larvseg_jax.errors import UserError
from larvseg_jax.models.vit_config import ViTConfig
from larvseg_jax.weights.stored_weights import BLOCK, CLASS_TOKEN, POSITIONS, StoredWeights
from larvseg_jax.weights.torch_layout import ATTENTION, from_torch, unstacked

Activation = Literal["quick_gelu", "gelu", ""]

_PATCHES = "visual.conv1.weight", "vision_model.embeddings.patch_embedding.weight"
_NORM_BEFORE = "visual.ln_pre.weight", "vision_model.pre_layrnorm.weight"
_NORMS = {  # the norms beside the blocks
    **dict.fromkeys(("visual.ln_pre", "vision_model.pre_layrnorm"), "backbone/Transformer/norm_before"),
    **dict.fromkeys(("visual.ln_post", "vision_model.post_layernorm"), "backbone/Transformer/encoder_norm"),
    **dict.fromkeys(("ln_final", "text_model.final_layer_norm"), "text/final_norm"),
}
_OUTSIDE = {
    **dict.fromkeys(_PATCHES, "backbone/embedding/kernel"),
    **dict.fromkeys(("visual.class_embedding", "vision_model.embeddings.class_embedding"), CLASS_TOKEN),
    **dict.fromkeys(("visual.positional_embedding", "vision_model.embeddings.position_embedding.weight"), POSITIONS),
    **dict.fromkeys(("visual.proj", "visual_projection.weight"), "image_projection"),
    **dict.fromkeys(("text_projection", "text_projection.weight"), "text_projection"),
    **dict.fromkeys(("token_embedding.weight", "text_model.embeddings.token_embedding.weight"), "text/token_embedding"),
    **dict.fromkeys(
        ("positional_embedding", "text_model.embeddings.position_embedding.weight"), "text/positional_embedding"
    ),
    "logit_scale": "logit_scale",
}
_TRANSPOSED = ("visual_projection.weight", "text_projection.weight")
_BLOCK = re.compile(
    r"(?:(visual\.transformer\.resblocks|vision_model\.encoder\.layers)"
    r"|(?:transformer\.resblocks|text_model\.encoder\.layers))\.(\d+)\.(.+)\.(\w+)"
)
_IN_BLOCK = {
    **dict.fromkeys(("ln_1", "layer_norm1"), "LayerNorm_0"),
    **dict.fromkeys(("ln_2", "layer_norm2"), "LayerNorm_2"),
    **dict.fromkeys(("attn.out_proj", "self_attn.out_proj"), f"{ATTENTION}/out"),
    **{f"self_attn.{name[0]}_proj": f"{ATTENTION}/{name}" for name in ("query", "key", "value")},
    **dict.fromkeys(("mlp.c_fc", "mlp.fc1"), "MlpBlock_3/Dense_0"),
    **dict.fromkeys(("mlp.c_proj", "mlp.fc2"), "MlpBlock_3/Dense_1"),
}
_EXTRA = re.compile(r"(?:.*\.)?position_ids|input_resolution|context_length|vocab_size|attn_mask|.*\.attn_mask")
_ARCHIVE = "input_resolution"  # only OpenAI's own archives have it
_HEADS = {1280: 16, 1408: 16, 1664: 16}  # of image towers (H, g, bigG of open_clip) that have not one per 64 features


class _Beside(NamedTuple):
    """What a config beside a file says; heads 0 and activation "" where it is silent."""

    image_heads: int = 0
    text_heads: int = 0
    activation: Activation = ""


def is_clip(names: Iterable[str]) -> bool:
    """Whether arrays of these names are a CLIP whose image tower is a vision transformer."""
    there = set(map(_without_prefix, names))
    return any(name in there for name in _PATCHES) and any(name in there for name in _NORM_BEFORE)


def read_clip(
    arrays: Mapping[str, Callable[[], np.ndarray]], path: Path, model: ViTConfig | None = None, text_heads: int = 0
) -> StoredWeights:
    """Both towers, the projections and the scale, under the names of models/clip.py.

    Args:
      arrays: names in the file, and what reads each; `is_clip` has said yes to the names.
      path: the file, for messages; a config beside it (config.json, open_clip_config.json) says what it does not.
      model: whose heads are believed if its width is that of the image tower; else, and without it, the config tells
        them, or there is one per 64 features.
      text_heads: of the text tower, where the caller knows.

    Raises:
      UserError: an array has a shape that no CLIP has, or an array is there twice.
    """
    beside = _beside(path, arrays)
    widths = _widths(arrays, path)
    believed = model.num_heads if model and model.width == widths[0] else 0
    image_heads = believed or beside.image_heads or _HEADS.get(widths[0], max(widths[0] // 64, 1))
    text_heads = text_heads or beside.text_heads or max(widths[1] // 64, 1)
    found: dict[str, np.ndarray] = {}
    left_out = []
    for name, read in arrays.items():
        inner = _without_prefix(name)
        if _EXTRA.fullmatch(inner):
            left_out.append(name)
            continue
        value = read()
        try:
            ours = translated(inner, value, (image_heads, text_heads))
        except (ValueError, IndexError) as error:
            raise UserError(
                f"{path}: {name} has shape {value.shape}, which a CLIP with {image_heads} and {text_heads} heads has "
                "not: it is damaged, or lacks the config.json that tells its heads"
            ) from error
        if twice := sorted(found.keys() & ours.keys()):
            raise UserError(f"{path} holds {twice[0]} twice, under {name} and another name: give one with one of them")
        found |= ours
    return StoredWeights(
        f"CLIP {path.name}",
        found,
        left_out=tuple(left_out),
        pixels="clip",
        whose=_owner(arrays),
        activation=_activation(arrays, path, beside),
    )


def _without_prefix(name: str) -> str:
    """CustomTextCLIP of open_clip has its text tower under "text."."""
    return name.removeprefix("module.").removeprefix("text.")


def _owner(names: Iterable[str]) -> str:
    hugging_face = any(name.startswith("vision_model.") for name in names)
    return "a CLIP as Hugging Face names it" if hugging_face else "a CLIP as OpenAI and open_clip name it"


def _widths(arrays: Mapping[str, Callable[[], np.ndarray]], path: Path) -> tuple[int, int]:
    """Of both towers; 0 of a text tower that is not there."""
    by_name = {_without_prefix(name): read for name, read in arrays.items()}
    patches = next(by_name[name] for name in _PATCHES if name in by_name)().shape
    if len(patches) != 4 or not all(patches):
        raise UserError(f"{path}: its patch embedding has shape {patches}, not (width, 3, patch, patch): it is damaged")
    norm = by_name.get("ln_final.weight", by_name.get("text_model.final_layer_norm.weight"))
    return patches[0], 0 if norm is None else int(norm().size)


def translated(name: str, value: np.ndarray, heads: tuple[int, int]) -> dict[str, np.ndarray]:
    """Our arrays of one of theirs; an unknown name is kept, so that it is reported."""
    if name in _OUTSIDE:
        ours = _OUTSIDE[name]
        if ours == CLASS_TOKEN:
            return {ours: value.reshape(1, 1, -1)}
        if ours == "logit_scale":
            return {ours: value.reshape(())}
        if ours == POSITIONS:
            return {ours: value[None]}
        if ours == "backbone/embedding/kernel":
            return {ours: value.transpose(2, 3, 1, 0)}
        return {ours: value.T if name in _TRANSPOSED else value}
    part, _, kind = name.rpartition(".")
    if part in _NORMS:
        return {f"{_NORMS[part]}/{'scale' if kind == 'weight' else kind}": value}
    match = _BLOCK.fullmatch(name.replace("in_proj_", "in_proj."))
    if not match or match[4] not in ("weight", "bias"):
        return {name: value}
    image, number, part = match[1], match[2], match[3]
    block = f"{BLOCK if image else 'text/encoderblock_'}{number}"
    of = heads[0] if image else heads[1]
    matrix = "kernel" if match[4] == "weight" else "bias"
    if part == "attn.in_proj":
        return unstacked(block, matrix, value, of)
    if part not in _IN_BLOCK:
        return {name: value}
    ours = f"{block}/{_IN_BLOCK[part]}/{matrix}"
    ours = ours.replace("/kernel", "/scale") if "LayerNorm" in ours else ours
    return {ours: from_torch(ours, value, of)}


def _activation(names: Iterable[str], path: Path, beside: _Beside) -> Activation:
    """QuickGELU or the exact GELU: by what the file is, by the config beside it, by its name; "" if nothing tells.

    OpenAI's weights have the first, those of open_clip the second unless it is said. Nothing in the arrays differs.
    """
    names = set(map(_without_prefix, names))
    if _ARCHIVE in names:
        return "quick_gelu"
    if beside.activation:
        return beside.activation
    if re.search("quickgelu|quick_gelu|openai", path.name.lower()):
        return "quick_gelu"
    if re.search("laion|datacomp", path.name.lower()) or _PATCHES[0] in names:
        return "gelu"
    return ""


def _beside(path: Path, names: Iterable[str]) -> _Beside:
    """What the config of the same library beside a file says, if there is one that can be read."""
    hugging_face = any(name.startswith("vision_model.") for name in names)
    file = path.with_name("config.json" if hugging_face else "open_clip_config.json")
    try:
        config = json.loads(file.read_text("utf-8"))
        return _of_transformers(config) if hugging_face else _of_open_clip(config["model_cfg"])
    except (OSError, ValueError, KeyError, TypeError, AttributeError, RecursionError):
        return _Beside()


def _of_transformers(config: Mapping[str, Any]) -> _Beside:
    """A silent config has what transformers gives a CLIP by default: QuickGELU, and the heads of ViT-B/32."""
    if config.get("model_type") != "clip":
        return _Beside()
    vision, text = (config.get(f"{part}_config") or {} for part in ("vision", "text"))
    act = vision.get("hidden_act", "quick_gelu")
    activation: Activation = "quick_gelu" if act == "quick_gelu" else "gelu" if act == "gelu" else ""
    return _Beside(int(vision.get("num_attention_heads", 12)), int(text.get("num_attention_heads", 8)), activation)


def _of_open_clip(config: Mapping[str, Any]) -> _Beside:
    vision, text = config["vision_cfg"], config["text_cfg"]
    heads = int(vision["width"]) // int(vision.get("head_width", 64)) if "width" in vision else 0
    return _Beside(heads, int(text.get("heads", 0)), "quick_gelu" if config.get("quick_gelu", False) else "gelu")
