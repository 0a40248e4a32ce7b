"""Weights as they were found in a file, whatever its kind, under the names of our parameters."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Mapping

import numpy as np

CLASS_EMBEDDINGS = "head/class_embeddings"
POSITIONS = "backbone/Transformer/posembed_input/pos_embedding"

_BLOCK = "backbone/Transformer/encoderblock_"
_QUERY = f"{_BLOCK}0/MultiHeadDotProductAttention_1/query/bias"
_MLP = f"{_BLOCK}0/MlpBlock_3/Dense_0/bias"
_PATCHES = "backbone/embedding/kernel"
_SIZES = {(192, 12, 3, 768): "Ti", (384, 12, 6, 1536): "S", (768, 12, 12, 3072): "B", (1024, 24, 16, 4096): "L"}


@dataclasses.dataclass(frozen=True)
class StoredWeights:
    """What a file holds.

    Attributes:
      source: the file and its kind, for people.
      arrays: "backbone/..." and "head/..." -> array, in the layout of our parameters.
      classes: names of the rows of the class embeddings; none if the file has no head of ours.
      left_out: names in the file that have no use here, such as the classifier of an AugReg file.
    """

    source: str
    arrays: Mapping[str, np.ndarray]
    classes: tuple[str, ...] = ()
    left_out: tuple[str, ...] = ()

    @property
    def shapes(self) -> dict[str, tuple[int, ...]]:
        """Shape of every array."""
        return {name: value.shape for name, value in self.arrays.items()}


def describe_size(shapes: Mapping[str, tuple[int, ...]]) -> str:
    """The size of a backbone in the field's words, "ViT-S/16 at 384 pixels", as far as its shapes tell."""
    if any(name.startswith("backbone/conv_root/") for name in shapes):
        return "hybrid with a ResNet stem"
    width = next((shapes[name][-1] for name in ("backbone/cls", _PATCHES) if shapes.get(name)), 0)
    blocks = {name.removeprefix(_BLOCK).split("/")[0] for name in shapes if name.startswith(_BLOCK)}
    depth, heads, mlp = len(blocks), *((shapes.get(name) or (0,))[0] for name in (_QUERY, _MLP))
    if not width or not depth:
        return "file without a vision transformer"
    size = _SIZES.get((width, depth, heads, mlp))
    patch, stem = _patch_size(shapes)
    name = f"ViT-{size}/{patch}" if size else f"ViT/{patch} of width {width}, depth {depth}, {heads} heads, MLP {mlp}"
    tokens = (*shapes.get(POSITIONS, ()), 0, 0)[1] - 1  # of a damaged file it may have any shape
    side = math.isqrt(max(tokens, 0))
    grid = f" at {side * patch} pixels" if side and side**2 == tokens else ""
    return f"{name}{grid}{stem}"


def _patch_size(shapes: Mapping[str, tuple[int, ...]]) -> tuple[int, str]:
    """The patch size, and what to say of the stem if it is not the usual one."""
    if len(shapes.get(_PATCHES, ())) == 4:
        return shapes[_PATCHES][0], ""
    halvings = sum(name.startswith("backbone/stem/conv_") and name.endswith("/kernel") for name in shapes)
    return 2**halvings, " with a conv stem"
