"""A CLIP's file as a whole model: what network it holds, in the words of a config (docs/clip.md)."""

from __future__ import annotations

import dataclasses
import functools
import math
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
from safetensors import safe_open

from larvseg_jax.errors import UserError
from larvseg_jax.models.vit_config import ViTConfig
from larvseg_jax.weights.clip_files import is_clip, read_clip
from larvseg_jax.weights.original import TORCH_SUFFIXES
from larvseg_jax.weights.safetensors_file import SUFFIX, read_arrays
from larvseg_jax.weights.stored_weights import POSITIONS, StoredWeights, options_of
from larvseg_jax.weights.torch_file import read_state_dict

_IDS = 49_408  # of the published tokenizer
_PARTS = "image_projection", "text/token_embedding", "text/positional_embedding", "text_projection", "logit_scale"


@dataclasses.dataclass(frozen=True)
class ClipModel:
    """What a file holds, and the sections `model` and `method` of a config that make its network."""

    stored: StoredWeights
    model: Mapping[str, Any]
    method: Mapping[str, Any]


def clip_model(path: Path) -> ClipModel | None:
    """The CLIP in a file; None if it is another kind of file, of which others will say what is wrong.

    Raises:
      UserError: it is a CLIP without a text tower, of another tokenizer, or one that does not say its activation.
    """
    arrays = _clip_arrays(path)
    if arrays is None:
        return None
    stored = read_clip(arrays, path)
    if missing := [part for part in _PARTS if part not in stored.arrays]:
        raise UserError(f"{path} is a part of a CLIP, without {missing[0]}: give a file with both towers")
    found = (*stored.arrays["text/token_embedding"].shape, 0)[0]
    if found != _IDS:
        raise UserError(f"{path} is a CLIP of {found:,} ids, and the tokenizer has {_IDS:,}: give an English CLIP")
    if not stored.activation:
        raise UserError(
            f"{path} is a CLIP that does not say its activation, QuickGELU (OpenAI) or GELU (LAION): put the "
            "config.json beside it that it came with, or write quickgelu or laion into its name"
        )
    try:
        return ClipModel(stored, _backbone(stored), _method(stored))
    except (ValueError, TypeError, LookupError, ZeroDivisionError, UserError) as error:
        raise UserError(f"{path} is damaged: its arrays have not the shapes of a CLIP ({error})") from error


def _clip_arrays(path: Path) -> Mapping[str, Callable[[], np.ndarray]] | None:
    """What reads each array, if the names are a CLIP's."""
    if path.suffix in TORCH_SUFFIXES:
        tensors = read_state_dict(path)
        return {name: tensor.read for name, tensor in tensors.items()} if is_clip(tensors) else None
    if path.suffix != SUFFIX or not path.is_file():
        return None
    try:
        with safe_open(path, framework="numpy") as file:
            names = list(file.keys())
    except Exception:  # of the library; the reader of our own files says what it is
        return None
    if not is_clip(names):
        return None
    found, _ = read_arrays(path)
    return {name: functools.partial(found.__getitem__, name) for name in found}


def _backbone(stored: StoredWeights) -> dict[str, Any]:
    told = options_of(stored.shapes)
    side = math.isqrt(max(stored.arrays[POSITIONS].shape[1] - 1, 0)) * told["patch_size"]
    sizes = {name: told[name] for name in ("width", "depth", "num_heads", "mlp_dim", "patch_size")}
    return dataclasses.asdict(
        ViTConfig(
            **sizes,
            image_size=side,
            mlp=stored.activation,  # type: ignore[arg-type]
            pixels="clip",
            layer_norm_epsilon=1e-5,
            norm_before=True,
            patch_bias=False,
        )
    )


def _method(stored: StoredWeights) -> dict[str, Any]:
    shapes = stored.shapes
    depth = len({name.split("/")[1] for name in shapes if name.startswith("text/encoderblock_")})
    block = "text/encoderblock_0"
    _, heads, _ = (*shapes.get(f"{block}/MultiHeadDotProductAttention_1/query/kernel", ()), 0, 0, 0)[:3]
    hidden = (*shapes.get(f"{block}/MlpBlock_3/Dense_0/kernel", ()), 0, 0)[1]
    context, width = shapes["text/positional_embedding"]
    return {
        "name": "clip",
        "width": shapes["text_projection"][-1],
        "text": {"width": width, "depth": depth, "num_heads": heads, "mlp_dim": hidden},
        "tokenizer": {"kind": "clip", "context": context},
    }
