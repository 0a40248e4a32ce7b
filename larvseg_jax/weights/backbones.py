"""Backbones of other implementations under our names: timm, facebook's DINOv2, Hugging Face (docs/weights.md).

So are the files of DeiT, MAE and DINO, which have the names of timm. Whatever a name means is told by it alone, so that
the spellings may be mixed; which kind of file the arrays come from plays no role.
"""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path

import numpy as np

from larvseg_jax.errors import UserError
from larvseg_jax.weights.foreign import whose
from larvseg_jax.weights.stored_weights import BLOCK, CLASS_TOKEN, POSITIONS, REGISTERS, StoredWeights
from larvseg_jax.weights.torch_layout import ATTENTION, from_torch, unstacked

_PREFIX = r"(?:module\.|model\.|backbone\.|vit\.|deit\.|dinov2\.|dinov2_with_registers\.)*"
_PATCHES = r"(?:patch_embed\.proj|embeddings\.patch_embeddings\.projection)\.weight"
_QUERY = r"(?:blocks|encoder\.layer|layers)\.0\.(?:attn\.qkv|attention\.attention\.query|attention\.q_proj)\.weight"
_OUTSIDE = {
    "cls_token": CLASS_TOKEN,
    "pos_embed": POSITIONS,
    "position_embeddings": POSITIONS,
    "reg_token": REGISTERS,  # timm
    "register_tokens": REGISTERS,
    "dist_token": REGISTERS,
    "distillation_token": REGISTERS,
    "patch_embed.proj.weight": "backbone/embedding/kernel",
    "patch_embed.proj.bias": "backbone/embedding/bias",
    "patch_embeddings.projection.weight": "backbone/embedding/kernel",
    "patch_embeddings.projection.bias": "backbone/embedding/bias",
    "norm.weight": "backbone/Transformer/encoder_norm/scale",
    "norm.bias": "backbone/Transformer/encoder_norm/bias",
    "layernorm.weight": "backbone/Transformer/encoder_norm/scale",
    "layernorm.bias": "backbone/Transformer/encoder_norm/bias",
}
_BLOCK = re.compile(r"(?:blocks|encoder\.layer|layers)\.(\d+)\.(.+)\.(\w+)")
_IN_BLOCK = {
    # timm and facebook; Hugging Face; Hugging Face since version 5
    **dict.fromkeys(("norm1", "layernorm_before"), "LayerNorm_0"),
    **dict.fromkeys(("norm2", "layernorm_after"), "LayerNorm_2"),
    **dict.fromkeys(("attention.attention.query", "attention.q_proj"), f"{ATTENTION}/query"),
    **dict.fromkeys(("attention.attention.key", "attention.k_proj"), f"{ATTENTION}/key"),
    **dict.fromkeys(("attention.attention.value", "attention.v_proj"), f"{ATTENTION}/value"),
    **dict.fromkeys(("attn.proj", "attention.output.dense", "attention.o_proj"), f"{ATTENTION}/out"),
    **dict.fromkeys(("mlp.fc1", "mlp.w12", "mlp.weights_in", "intermediate.dense"), "MlpBlock_3/Dense_0"),
    **dict.fromkeys(("mlp.fc2", "mlp.w3", "mlp.weights_out", "mlp.down_proj", "output.dense"), "MlpBlock_3/Dense_1"),
}
_SCALES = {
    "ls1.gamma": "attention_scale",
    "layer_scale1.lambda1": "attention_scale",
    "ls2.gamma": "mlp_scale",
    "layer_scale2.lambda1": "mlp_scale",
}
_HALVES = ("mlp.gate_proj", "mlp.up_proj")  # of the first layer of SwiGLU
_EXTRA = re.compile(  # classifiers, pooling, what only pretraining needs
    r"(?:head|head_dist|pre_logits|fc_norm|pooler|classifier|cls_classifier|distillation_classifier|decoder)\."
    r"|decoder_|mask_token$|embeddings\.mask_token$"
)


def is_backbone(names: Iterable[str]) -> bool:
    """Whether arrays of these names are a ViT of one of the implementations read here."""
    return bool(_prefixes(names := list(names), _PATCHES) & _prefixes(names, _QUERY))


def read_backbone(arrays: Mapping[str, Callable[[], np.ndarray]], model: tuple[int, int], path: Path) -> StoredWeights:
    """The backbone; classifiers, MAE's decoder and the mask token are left out.

    Args:
      arrays: names in the file, and what reads each; `is_backbone` has said yes to the names.
      model: width and heads of the model. A file does not tell its heads: they are the model's if the width is,
        else one per 64 features, as in most models of the field.
      path: the file, for messages.

    Raises:
      UserError: an array has a shape that no ViT has, or there is no final norm for the tokens.
    """
    (prefix,) = sorted(_prefixes(arrays, _PATCHES) & _prefixes(arrays, _QUERY))[:1]
    width = read_width(arrays, prefix, path)
    heads = model[1] if width == model[0] else max(width // 64, 1)
    found: dict[str, np.ndarray] = {}
    left_out = []
    for name, read in arrays.items():
        inner = name.removeprefix(prefix)
        if not name.startswith(prefix) or _EXTRA.match(inner):
            left_out.append(name)
            continue
        value = read()
        try:
            translated = _translated(inner, value, heads)
        except (ValueError, IndexError) as error:
            raise UserError(
                f"{path}: {name} has shape {value.shape}, which a ViT of width {width} with {heads} heads has not: "
                "it is damaged, or set --config.model.num_heads"
            ) from error
        if twice := sorted(found.keys() & translated.keys()):
            raise UserError(f"{path} holds {twice[0]} twice, under {name} and another name: give one with one of them")
        found |= translated
    _join_halves(found)
    _place_positions(found)
    if "backbone/Transformer/encoder_norm/scale" not in found and f"{prefix}fc_norm.weight" in arrays:
        raise UserError(
            f"{path} has no final norm of its tokens, only one of their mean ({prefix}fc_norm): it was fine-tuned as a "
            "classifier; give the pretrained file that it was made from"
        )
    return StoredWeights(
        f"backbone {path.name}", found, left_out=tuple(left_out), pixels=_pixels(arrays), whose=whose(arrays)
    )


def read_width(arrays: Mapping[str, Callable[[], np.ndarray]], prefix: str, path: Path) -> int:
    """The width of a backbone, by its patch embedding; UserError if that has none."""
    name = next(name for name in arrays if re.fullmatch(re.escape(prefix) + _PATCHES, name))
    shape = arrays[name]().shape
    if len(shape) != 4 or not all(shape):
        raise UserError(f"{path}: {name} has shape {shape}, and not (width, 3, patch, patch): it is damaged")
    return shape[0]


def _prefixes(names: Iterable[str], pattern: str) -> set[str]:
    found = (re.fullmatch(f"({_PREFIX}){pattern}", name) for name in names)
    return {match[1] for match in found if match}


def _translated(name: str, value: np.ndarray, heads: int) -> dict[str, np.ndarray]:
    """Our arrays of one of theirs; an unknown name is kept, so that it is reported."""
    outside = _OUTSIDE.get(name.removeprefix("embeddings."))
    if outside:
        return {outside: from_torch(outside, value, heads)}
    match = _BLOCK.fullmatch(name)
    if not match:
        return {f"backbone/{name}": value}
    block, part, kind = f"{BLOCK}{match[1]}", match[2], match[3]
    if f"{part}.{kind}" in _SCALES:
        return {f"{block}/{_SCALES[f'{part}.{kind}']}": value}
    if kind not in ("weight", "bias") or part not in (*_IN_BLOCK, *_HALVES, "attn.qkv"):
        return {f"backbone/{name}": value}
    matrix = "kernel" if kind == "weight" else "bias"
    if part == "attn.qkv":
        return unstacked(block, matrix, value, heads)
    if part in _HALVES:
        return {f"{block}/MlpBlock_3/{part}/{matrix}": value.T}
    ours = f"{block}/{_IN_BLOCK[part]}/{matrix}"
    ours = ours.replace("/kernel", "/scale") if "LayerNorm" in ours else ours
    return {ours: from_torch(ours, value, heads)}


def _pixels(names: Iterable[str]) -> str:
    """The families that are told by a name (DINOv2, DeiT with distillation, MAE) know ImageNet's mean and std.

    A plain ViT may be AugReg's or Google's ("half"), or one of DeiT or DINO.
    """
    marks = r"ls1\.gamma|layer_scale1\.lambda1|dist_token|distillation_token|decoder_pos_embed"
    return "imagenet" if any(re.search(rf"(?:^|\.)(?:{marks})$", name) for name in names) else ""


def _join_halves(found: dict[str, np.ndarray]) -> None:
    """The two halves of SwiGLU's first layer as one array, the gate first, as all others store it."""
    gate, up = _HALVES
    for name in [name for name in found if f"/{gate}/" in name]:
        other = name.replace(f"/{gate}/", f"/{up}/")
        if other in found and found[name].shape == found[other].shape:
            joined = np.concatenate([found.pop(name), found.pop(other)], -1)
            found[name.replace(f"/{gate}/", "/Dense_0/")] = joined


def _place_positions(found: dict[str, np.ndarray]) -> None:
    """The position embedding for class token and patches alone, as we have it.

    Elsewhere it may lack the class token's entry (timm with `no_embed_class`), which is then zero here; or have entries
    of the registers, too (a distillation token), which these then contain.
    """
    positions, registers = found.get(POSITIONS), found.get(REGISTERS)
    if positions is None or positions.ndim != 3:
        return
    cls = int(CLASS_TOKEN in found)
    more = registers.shape[1] if registers is not None and registers.ndim == 3 else 0
    entries = positions.shape[1]
    fits = [n for n in (cls, 0, cls + more) if entries > n and math.isqrt(entries - n) ** 2 == entries - n]
    if not fits or fits[0] == cls:
        return
    if not fits[0]:
        found[POSITIONS] = np.concatenate([np.zeros_like(positions[:, :cls]), positions], 1)
    elif registers is not None and registers.shape[-1] == positions.shape[-1]:
        wide = registers.astype(np.float32) + positions[:, cls : cls + more].astype(np.float32)
        found[REGISTERS] = wide
        found[POSITIONS] = np.concatenate([positions[:, :cls], positions[:, cls + more :]], 1)
