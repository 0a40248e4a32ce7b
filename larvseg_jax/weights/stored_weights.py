"""Weights as they were found in a file, whatever its kind, under the names of our parameters."""

from __future__ import annotations

import dataclasses
import math
import re
from collections.abc import Mapping
from typing import Any

import numpy as np

CLASS_EMBEDDINGS = "head/class_embeddings"
POSITIONS = "backbone/Transformer/posembed_input/pos_embedding"

CLASS_TOKEN = "backbone/cls"
REGISTERS = "backbone/Transformer/registers"
BLOCK = "backbone/Transformer/encoderblock_"

_BOTTLENECK = re.compile(r"backbone/layer\d_\d+/")
_QUERY = f"{BLOCK}0/MultiHeadDotProductAttention_1/query/bias"
_MLP_IN, _MLP_OUT = (f"{BLOCK}0/MlpBlock_3/Dense_{i}/kernel" for i in range(2))
_PATCHES = "backbone/embedding/kernel"
_NORM_BEFORE = "backbone/Transformer/norm_before"
_SIZES = {
    (192, 12, 3, 768): "Ti",
    (384, 12, 6, 1536): "S",
    (768, 12, 12, 3072): "B",
    (1024, 24, 16, 4096): "L",
    (1280, 32, 16, 5120): "H",
    (1536, 40, 24, 4096): "g",  # DINOv2's
}


@dataclasses.dataclass(frozen=True)
class StoredWeights:
    """What a file holds.

    Attributes:
      source: the file and its kind, for people.
      arrays: "backbone/..." and "head/..." -> array, in the layout of our parameters.
      classes: names of the rows of the class embeddings; none if the file has no head of ours.
      left_out: names in the file that have no use here, such as the classifier of an AugReg file.
      pixels: how the pictures were normalised that it was trained with, as `model.pixels`; "" where nothing tells.
      whose: whose names its arrays have, for people; "" for ours.
      activation: of a CLIP's MLPs, as `model.mlp`; "" where nothing tells, and of others.
    """

    source: str
    arrays: Mapping[str, np.ndarray]
    classes: tuple[str, ...] = ()
    left_out: tuple[str, ...] = ()
    pixels: str = ""
    whose: str = ""
    activation: str = ""

    @property
    def shapes(self) -> dict[str, tuple[int, ...]]:
        """Shape of every array."""
        return {name: value.shape for name, value in self.arrays.items()}


def pixels_of(settings: Mapping[str, Any]) -> str:
    """`model.pixels` of a model of ours; before November 2026 there was but one kind."""
    model = settings.get("model")
    return str(model.get("pixels", "imagenet")) if isinstance(model, Mapping) else ""


def options_of(shapes: Mapping[str, tuple[int, ...]]) -> dict[str, Any]:
    """The options of `model` that names and shapes of a backbone's arrays tell; 0 where they do not (a damaged file).

    `num_heads` is told by arrays in our layout only: a file of another implementation has been given its heads.
    """
    width = next((shapes[name][-1] for name in (CLASS_TOKEN, _PATCHES, POSITIONS) if shapes.get(name)), 0)
    blocks = {name.removeprefix(BLOCK).split("/")[0] for name in shapes if name.startswith(BLOCK)}
    hidden, mlp_dim = _size(shapes, _MLP_IN, 1), _size(shapes, _MLP_OUT, 0)
    entries = _size(shapes, POSITIONS, 1)
    conv = any(name.startswith("backbone/stem/") for name in shapes)
    halvings = sum(name.startswith("backbone/stem/conv_") and name.endswith("/kernel") for name in shapes)
    return {
        "width": width,
        "depth": len(blocks),
        "num_heads": _size(shapes, _QUERY, 0),
        "mlp_dim": mlp_dim,
        "patch_size": 2**halvings if conv else _size(shapes, _PATCHES, 0),
        "stem": "conv" if conv else "patch",
        # A damaged file may lack the token itself, but not its entry in the position embedding.
        "class_token": CLASS_TOKEN in shapes or (not _is_square(entries) and _is_square(entries - 1)),
        "registers": _size(shapes, REGISTERS, 1),
        "layer_scale": f"{BLOCK}0/attention_scale" in shapes,
        "mlp": "swiglu" if mlp_dim and hidden == 2 * mlp_dim else "gelu",
        "norm_before": (norm_before := f"{_NORM_BEFORE}/scale" in shapes),
        # Other damaged files lack it, too.
        "patch_bias": not norm_before or "backbone/embedding/bias" in shapes,
    }


def describe_size(shapes: Mapping[str, tuple[int, ...]]) -> str:
    """The size of a backbone in the field's words, "ViT-S/16 at 384 pixels", as far as its shapes tell."""
    if any(name.startswith("backbone/conv_root/") for name in shapes):
        return "hybrid with a ResNet stem"
    if bottlenecks := {match[0] for match in map(_BOTTLENECK.match, shapes) if match}:
        return f"ResNet-{3 * len(bottlenecks) + 2}"  # convolutions, and the classifier that it once had
    found = options_of(shapes)
    width, depth, heads, mlp, patch = (found[name] for name in ("width", "depth", "num_heads", "mlp_dim", "patch_size"))
    if not width or not depth:
        return "file without a vision transformer"
    size = _SIZES.get((width, depth, heads, mlp))
    name = f"ViT-{size}/{patch}" if size else f"ViT/{patch} of width {width}, depth {depth}, {heads} heads, MLP {mlp}"
    patches = _size(shapes, POSITIONS, 1) - found["class_token"]
    side = math.isqrt(max(patches, 0))
    grid = f" at {side * patch} pixels" if side and side**2 == patches else ""
    registers = found["registers"]
    beyond = {
        "a conv stem": found["stem"] == "conv",
        "no class token": not found["class_token"],
        f"{registers} register{'s' if registers > 1 else ''}": registers > 0,
        "layer scale": found["layer_scale"],
        "SwiGLU": found["mlp"] == "swiglu",
        "a norm before the blocks": found["norm_before"],
    }
    listed = ", ".join(what for what, there in beyond.items() if there)
    return f"{name}{grid}{' with ' if listed else ''}{listed}"


def _is_square(number: int) -> bool:
    return number > 0 and math.isqrt(number) ** 2 == number


def _size(shapes: Mapping[str, tuple[int, ...]], name: str, axis: int) -> int:
    """0 if there is no such array, or it has no such axis: of a damaged file it may have any shape."""
    return (*shapes.get(name, ()), *(0,) * (axis + 1))[axis]
