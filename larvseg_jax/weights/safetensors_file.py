"""A trained model as one .safetensors file: parameters, class names, sizes, and where it comes from.

The file can be read by any tool that knows safetensors, and is all that inference needs (docs/weights.md); or it holds
only what was learnt on frozen weights, and which these are (weights/learnt.py).
"""

from __future__ import annotations

import contextlib
import dataclasses
import hashlib
import json
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import PyTree
from safetensors import SafetensorError, safe_open
from safetensors.numpy import save_file

from larvseg_jax import old_settings
from larvseg_jax.console import printable
from larvseg_jax.devices.sharding import path_name
from larvseg_jax.errors import UserError
from larvseg_jax.weights.foreign import REMEDY, whose
from larvseg_jax.weights.stored_weights import CLASS_EMBEDDINGS, StoredWeights, pixels_of

FORMAT = "larvseg_jax 2"
_LEARNT_FORMAT = "larvseg_jax 3"  # not all parameters are in the file
_OLD_FORMAT = "larvseg_jax 1"  # of version 0.1: the memory is called "bank", the backbone's sizes stand apart
SUFFIX = ".safetensors"
_JSON: Mapping[str, type] = {
    "classes": list,
    "base": list,
    "novel": list,
    "step": int,
    "settings": dict,
    "versions": dict,
}
_MEMORY, _OLD_MEMORY = "memory/", "bank/"


@dataclasses.dataclass(frozen=True)
class ModelMetadata:
    """What a file says about its model.

    Attributes:
      classes: class names, row by row.
      base, novel: names of those learnt from masks, and from tags only.
      background: name of the background class, "" if there is none.
      source: the run or the file it was made from.
      step: steps of training; -1 where the source does not say.
      settings: the config of the run, as plain values; of files of the original the sections `model` and `method`.
      versions: of the packages it was trained with, and the commit.
      frozen: path -> digest of the parameters that are not in the file; {} where all are.
      pretrained: which file has them, for people; "" where all are in this one.
    """

    classes: tuple[str, ...]
    base: tuple[str, ...]
    novel: tuple[str, ...]
    background: str
    source: str
    step: int
    settings: Mapping[str, Any]
    versions: Mapping[str, str]
    frozen: Mapping[str, str] = dataclasses.field(default_factory=dict)
    pretrained: str = ""


@dataclasses.dataclass(frozen=True)
class SavedModel:
    """Parameters and memory by path ("head/gamma" -> NumPy array), the latter empty if not stored; metadata."""

    params: Mapping[str, np.ndarray]
    memory: Mapping[str, np.ndarray]
    metadata: ModelMetadata


def arrays_by_path(tree: PyTree) -> dict[str, np.ndarray]:
    """The leaves of a pytree by their paths, "head/gamma", as they are stored."""
    return {path_name(path): np.asarray(leaf) for path, leaf in jax.tree_util.tree_leaves_with_path(tree)}


def save_safetensors(path: Path, model: SavedModel) -> str:
    """Writes a model and returns its digest. An interrupted save leaves no file of that name.

    Floats of 16 bits in the memory are written as float32.

    Raises:
      UserError: the file cannot be written, or its name does not end in .safetensors.
    """
    if path.suffix != SUFFIX:
        raise UserError(f"{path} cannot be written: give a name that ends in {SUFFIX}")
    arrays = {name: np.asarray(value) for name, value in model.params.items()}
    arrays |= {f"{_MEMORY}{name}": _wide(np.asarray(value)) for name, value in model.memory.items()}
    arrays = {name: np.ascontiguousarray(value).reshape(value.shape) for name, value in arrays.items()}
    metadata = _to_text(model.metadata)
    metadata["digest"] = _digest(arrays, metadata)
    partial = path.with_name(f".{path.name}.partial")
    try:
        save_file(arrays, partial, metadata)
        os.replace(partial, path)
    except (OSError, SafetensorError) as error:
        with contextlib.suppress(OSError):
            partial.unlink()
        raise UserError(f"cannot write {path} ({_reason(error)}): give another --out") from error
    return metadata["digest"]


def load_safetensors(path: Path) -> SavedModel:
    """Reads what `save_safetensors` wrote, bit by bit.

    Raises:
      UserError: the file cannot be read, is not one of ours, or is not what was written.
    """
    arrays, metadata = read_arrays(path)
    if metadata.get("format") not in (FORMAT, _LEARNT_FORMAT, _OLD_FORMAT):
        found = metadata.get("format", "none")
        owner, remedy = whose(arrays), f"export a run with larvseg_jax.export, or {REMEDY}"
        what = f"holds {owner}" if owner else f"has format {found[:40]!r} and not {FORMAT!r}"
        raise UserError(f"{path} {what}: {remedy}")
    if metadata.pop("digest", "") != _digest(arrays, metadata):
        raise UserError(f"{path} is damaged: its digest does not match; copy or export it anew")
    prefix = _OLD_MEMORY if metadata["format"] == _OLD_FORMAT else _MEMORY
    memory = {name.removeprefix(prefix): value for name, value in arrays.items() if name.startswith(prefix)}
    params = {name: value for name, value in arrays.items() if not name.startswith(prefix)}
    try:
        saved = SavedModel(params, memory, _from_text(metadata, params, memory))
    except Exception as error:  # whatever JSON of another version, or of somebody else, may provoke
        raise UserError(f"{path} is of another version of larvseg_jax ({_reason(error)}): export it anew") from error
    embeddings, classes = params.get(CLASS_EMBEDDINGS), len(saved.metadata.classes)
    rows = classes if embeddings is None else (*embeddings.shape, 0)[0]
    if rows != classes:
        raise UserError(f"{path} has {rows} class embeddings for {classes} classes: export it anew")
    return saved


def read_safetensors(path: Path) -> StoredWeights:
    """The parameters, to start a training from."""
    saved = load_safetensors(path)
    if saved.metadata.frozen:
        source = printable(saved.metadata.pretrained)
        raise UserError(f"{path} holds only what was learnt on {source}: start from a run, or from all its weights")
    name, pixels = f"exported model {path.name}", pixels_of(saved.metadata.settings)
    return StoredWeights(name, saved.params, saved.metadata.classes, pixels=pixels)


def read_arrays(path: Path) -> tuple[dict[str, np.ndarray], dict[str, str]]:
    """The arrays and the metadata of a file, whosever it is; UserError if it cannot be read."""
    if not path.is_file():
        raise UserError(f"there is no file {path}: make one with python -m larvseg_jax.export")
    try:
        with safe_open(path, framework="numpy") as file:
            return {name: file.get_tensor(name) for name in file.keys()}, dict(file.metadata() or {})  # noqa: SIM118
    except Exception as error:  # of the library, and of NumPy where it lacks a dtype
        raise UserError(f"cannot read {path} ({_reason(error)}): it is damaged or no {SUFFIX} file") from error


def _to_text(metadata: ModelMetadata) -> dict[str, str]:
    """Safetensors metadata is text to text."""
    values = dataclasses.asdict(metadata)
    if not metadata.frozen:
        del values["frozen"], values["pretrained"]
    texts = {k: v if isinstance(v, str) else json.dumps(v) for k, v in values.items()}
    return {"format": _LEARNT_FORMAT if metadata.frozen else FORMAT, **texts}


def _from_text(
    metadata: Mapping[str, str], params: Mapping[str, np.ndarray], memory: Mapping[str, np.ndarray]
) -> ModelMetadata:
    learnt = metadata["format"] == _LEARNT_FORMAT
    kinds = {**_JSON, "frozen": dict} if learnt else _JSON
    plain: dict[str, Any] = {key: json.loads(metadata[key]) for key in kinds}
    for key, kind in kinds.items():
        value = plain[key]
        names = value if isinstance(value, list) else ()
        if not isinstance(value, kind) or isinstance(value, bool) or not all(isinstance(name, str) for name in names):
            raise TypeError(f"{key} is {str(value)[:40]}")
    frozen = plain.get("frozen", {})
    if learnt and (not frozen or frozen.keys() & params.keys()):
        raise ValueError("frozen does not name the parameters that are not in the file")
    settings = plain["settings"]
    if metadata["format"] == _OLD_FORMAT and "model" not in settings:  # its sizes stood beside the settings
        settings = {**settings, "model": json.loads(metadata["vit"])}
        if memory:
            settings["ca_classifier"] = {"memory_bank_size": memory["slots"].shape[1]}
    return ModelMetadata(
        classes=tuple(plain["classes"]),
        base=tuple(plain["base"]),
        novel=tuple(plain["novel"]),
        background=metadata["background"],
        source=metadata["source"],
        step=plain["step"],
        settings=old_settings.upgraded(settings),
        versions=plain["versions"],
        frozen=frozen,
        pretrained=metadata["pretrained"] if learnt else "",
    )


def _wide(value: np.ndarray) -> np.ndarray:
    """Floats of 16 bits as float32: not every tool knows bfloat16."""
    return value.astype(np.float32) if jnp.issubdtype(value.dtype, jnp.floating) and value.itemsize < 4 else value


def _digest(arrays: Mapping[str, np.ndarray], metadata: Mapping[str, str]) -> str:
    """SHA-256 of all names, dtypes, shapes, values and texts."""
    found = hashlib.sha256(json.dumps(sorted(metadata.items())).encode())
    for name, value in sorted(arrays.items()):
        found.update(f"{name} {value.dtype} {value.shape}".encode())
        found.update(np.ascontiguousarray(value).reshape(-1).view(np.uint8).data)  # Python knows no bfloat16
    return found.hexdigest()


def _reason(error: Exception) -> str:
    return " ".join(f"{type(error).__name__}: {error}".split())[:200]
