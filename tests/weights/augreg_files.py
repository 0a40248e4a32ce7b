"""A backbone on its own from an AugReg file."""

from __future__ import annotations

from pathlib import Path

from flax import traverse_util
from jaxtyping import PyTree

from larvseg_jax.models.vit_config import ViTConfig
from larvseg_jax.weights.augreg import read_augreg
from larvseg_jax.weights.pretrained import LoadReport, fit


def load_backbone(path: Path, layout: PyTree, vit: ViTConfig) -> tuple[PyTree, LoadReport]:
    """Parameters of the names and shapes of `layout`, float32 NumPy arrays, and what was done with the file."""
    flat = traverse_util.flatten_dict({"backbone": layout}, sep="/")
    shapes = {name: value.shape for name, value in flat.items()}
    arrays, report = fit(read_augreg(path), shapes, vit, path)
    return traverse_util.unflatten_dict(arrays, sep="/")["backbone"], report
