"""A tiny untrained model in a file, for what is done around a prediction."""

from pathlib import Path
from typing import Any

import jax

from larvseg_jax.config import network_sections
from larvseg_jax.devices.mesh import make_mesh
from larvseg_jax.methods.method import Task
from larvseg_jax.weights.safetensors_file import ModelMetadata, SavedModel, arrays_by_path, save_safetensors

SETTINGS = {
    "model": dict(width=16, depth=1, num_heads=2, mlp_dim=32, patch_size=8, image_size=32),
    "method": {"name": "larvseg"},
    "evals": {"val": {"scale": [64, 32], "window": 32, "stride": 32}},
}


def write_model(
    file: Path, names: tuple[str, ...], novel: tuple[str, ...] = (), background: str = "", aliases: Any = ()
) -> Path:
    """Writes a model of these classes and returns its path; those that are not novel or background are base."""
    config, vit = network_sections(SETTINGS)
    method = config.make(Task(len(names), vit, {}, make_mesh(1, 1, jax.devices()[:1])))
    params, _ = method.init(jax.random.key(0))
    base = tuple(name for name in names if name not in (*novel, background))
    settings = SETTINGS | ({"vocabulary": {"aliases": aliases}} if aliases else {})
    metadata = ModelMetadata(names, base, novel, background, "tiny", -1, settings, {})
    save_safetensors(file, SavedModel(arrays_by_path(params), {}, metadata))
    return file
