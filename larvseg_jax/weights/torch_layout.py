"""How PyTorch lays a transformer's arrays out, and how we do.

There linear weights are (out, in), query, key and value may be stacked in one matrix, convolutions are
(out, in, height, width); docs/weights.md has the table.
"""

from __future__ import annotations

import numpy as np

ATTENTION = "MultiHeadDotProductAttention_1"
"""The attention of a block in our parameter tree."""

_PROJECTIONS = ("query", "key", "value")


def from_torch(name: str, value: np.ndarray, heads: int) -> np.ndarray:
    """An array of theirs in the layout of the parameter of ours that has this name.

    Raises:
      ValueError or IndexError: it has a shape that no such parameter has.
    """
    part, _, kind = name.rpartition("/")
    projects = part.rpartition("/")[2] in _PROJECTIONS
    if kind == "bias" and projects:
        return value.reshape(heads, -1)
    if kind != "kernel":
        return value
    if part.endswith("embedding"):
        return value.transpose(2, 3, 1, 0)
    if projects:
        return value.T.reshape(value.shape[1], heads, -1)
    if part.endswith(f"{ATTENTION}/out"):
        return value.T.reshape(heads, -1, value.shape[0])
    return value.T


def unstacked(block: str, kind: str, value: np.ndarray, heads: int) -> dict[str, np.ndarray]:
    """Query, key and value of a block ("backbone/Transformer/encoderblock_0") out of one (3 D, D) or (3 D,) array."""
    names = [f"{block}/{ATTENTION}/{part}/{kind}" for part in _PROJECTIONS]
    return {name: from_torch(name, part, heads) for name, part in zip(names, np.split(value, len(names)), strict=True)}
