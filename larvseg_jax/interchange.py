"""A trained model as one .safetensors file: parameters, class names, sizes, and where it comes from.

The file can be read by any tool that knows safetensors, and is all that inference needs (docs/weights.md).
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

import numpy as np
from flax import traverse_util
from jaxtyping import PyTree
from safetensors import SafetensorError, safe_open
from safetensors.numpy import save_file

from larvseg_jax.errors import UserError
from larvseg_jax.memory_bank import MemoryBank
from larvseg_jax.models.segmenter import Segmenter
from larvseg_jax.models.vit import ViTConfig
from larvseg_jax.stored_weights import CLASS_EMBEDDINGS, StoredWeights

FORMAT = "larvseg_jax 1"
SUFFIX = ".safetensors"


@dataclasses.dataclass(frozen=True)
class ModelMetadata:
    """What a file says about its model.

    Attributes:
      classes: class names, row by row.
      base, novel: names of those learnt from masks, and from tags only.
      background: name of the background class, "" if there is none.
      vit: sizes of the backbone.
      source: the run or the file it was made from.
      step: steps of training; -1 where the source does not say.
      settings: the config of the run, as plain values; empty for files of the original.
      versions: of the packages it was trained with, and the commit.
    """

    classes: tuple[str, ...]
    base: tuple[str, ...]
    novel: tuple[str, ...]
    background: str
    vit: ViTConfig
    source: str
    step: int
    settings: Mapping[str, Any]
    versions: Mapping[str, str]

    def model(self) -> Segmenter:
        """The network that the parameters belong to: one row per class."""
        return Segmenter(self.vit, len(self.classes))


@dataclasses.dataclass(frozen=True)
class SavedModel:
    """Parameters (float32 NumPy arrays, a nested dict as `Segmenter` wants it), the bank if stored, metadata."""

    params: PyTree
    bank: MemoryBank | None
    metadata: ModelMetadata


def save_safetensors(path: Path, model: SavedModel) -> str:
    """Writes a model and returns its digest. An interrupted save leaves no file of that name.

    Slots of the bank are written as float32, whatever their dtype.

    Raises:
      UserError: the file cannot be written, or its name does not end in .safetensors.
    """
    if path.suffix != SUFFIX:
        raise UserError(f"{path} cannot be written: give a name that ends in {SUFFIX}")
    arrays = {name: np.asarray(value) for name, value in traverse_util.flatten_dict(model.params, sep="/").items()}
    if model.bank is not None:
        bank = dataclasses.replace(model.bank, slots=np.asarray(model.bank.slots, np.float32))
        arrays |= {f"bank/{field}": np.asarray(value) for field, value in vars(bank).items()}
    arrays = {name: np.ascontiguousarray(value).reshape(value.shape) for name, value in arrays.items()}
    metadata = _to_text(model.metadata, arrays)
    metadata["digest"] = _digest(arrays, metadata)
    partial = path.with_name(f".{path.name}.partial")
    try:
        save_file(arrays, partial, metadata)
        os.replace(partial, path)
    except (OSError, SafetensorError) as error:
        with contextlib.suppress(OSError):
            partial.unlink()
        raise UserError(f"cannot write {path} ({_reason(error)}): give another --to") from error
    return metadata["digest"]


def load_safetensors(path: Path) -> SavedModel:
    """Reads what `save_safetensors` wrote, bit by bit.

    Raises:
      UserError: the file cannot be read, is not one of ours, or is not what was written.
    """
    arrays, metadata = _read(path)
    if metadata.get("format") != FORMAT:
        found = metadata.get("format", "none")
        raise UserError(f"{path} has format {found!r} and not {FORMAT!r}: export a run with larvseg_jax.export")
    if metadata.pop("digest", "") != _digest(arrays, metadata):
        raise UserError(f"{path} is damaged: its digest does not match; copy or export it anew")
    try:
        told = _from_text(metadata)
        bank = {name.removeprefix("bank/"): value for name, value in arrays.items() if name.startswith("bank/")}
        params = {name: value for name, value in arrays.items() if not name.startswith("bank/")}
        rows = params[CLASS_EMBEDDINGS].shape[0]
        saved = SavedModel(traverse_util.unflatten_dict(params, sep="/"), MemoryBank(**bank) if bank else None, told)
    except (KeyError, TypeError, ValueError) as error:
        raise UserError(f"{path} is of another version of larvseg_jax ({_reason(error)}): export it anew") from error
    if rows != len(told.classes):
        raise UserError(f"{path} has {rows} class embeddings for {len(told.classes)} classes: export it anew")
    return saved


def read_safetensors(path: Path) -> StoredWeights:
    """The parameters, to start a training from."""
    saved = load_safetensors(path)
    arrays = traverse_util.flatten_dict(saved.params, sep="/")
    return StoredWeights(f"exported model {path.name}", arrays, saved.metadata.classes)


def _read(path: Path) -> tuple[dict[str, np.ndarray], dict[str, str]]:
    if not path.is_file():
        raise UserError(f"there is no file {path}: make one with python -m larvseg_jax.export")
    try:
        with safe_open(path, framework="numpy") as file:
            return {name: file.get_tensor(name) for name in file.keys()}, dict(file.metadata() or {})  # noqa: SIM118
    except (OSError, SafetensorError, ValueError, TypeError, AttributeError) as error:
        raise UserError(f"cannot read {path} ({_reason(error)}): it is damaged or no {SUFFIX} file") from error


def _to_text(metadata: ModelMetadata, arrays: Mapping[str, np.ndarray]) -> dict[str, str]:
    """Safetensors metadata is text to text; gamma and beta are there for the eye."""
    told: dict[str, Any] = dataclasses.asdict(metadata) | {
        "gamma": float(arrays["head/gamma"]),
        "beta": float(arrays["head/beta"]),
    }
    texts = {name: value if isinstance(value, str) else json.dumps(value) for name, value in told.items()}
    return {"format": FORMAT, **texts}


def _from_text(metadata: Mapping[str, str]) -> ModelMetadata:
    plain = {key: json.loads(metadata[key]) for key in ("classes", "base", "novel", "step", "settings", "versions")}
    return ModelMetadata(
        classes=tuple(plain["classes"]),
        base=tuple(plain["base"]),
        novel=tuple(plain["novel"]),
        background=metadata["background"],
        vit=ViTConfig(**json.loads(metadata["vit"])),
        source=metadata["source"],
        step=plain["step"],
        settings=plain["settings"],
        versions=plain["versions"],
    )


def _digest(arrays: Mapping[str, np.ndarray], metadata: Mapping[str, str]) -> str:
    """SHA-256 of all names, dtypes, shapes, values and texts."""
    found = hashlib.sha256(json.dumps(sorted(metadata.items())).encode())
    for name, value in sorted(arrays.items()):
        found.update(f"{name} {value.dtype} {value.shape}".encode())
        found.update(np.ascontiguousarray(value).data)
    return found.hexdigest()


def _reason(error: Exception) -> str:
    return " ".join(f"{type(error).__name__}: {error}".split())[:200]
