"""Reads AugReg weights: the .npz files of google-research/vision_transformer (docs/weights.md)."""

from __future__ import annotations

import zipfile
import zlib
from pathlib import Path

import jax.numpy as jnp
import numpy as np

from larvseg_jax.errors import UserError
from larvseg_jax.weights.stored_weights import StoredWeights, describe_size

PUBLIC_FOLDER = "vit_models/augreg"
_PREFIX = "opt/target/"  # in files saved with their optimizer
_CLASSIFIER = ("head/", "pre_logits/")  # of the data set the file was trained on


def read_augreg(path: Path) -> StoredWeights:
    """The backbone in a file; the classifier of its old data set is left out.

    Raises:
      UserError: there is no such file (the message says where the published one is), it cannot be read,
        or it is one of the hybrids (R_Ti/16, R26+S/32, ...), which begin with a ResNet.
    """
    if not path.exists():
        raise UserError(
            f"there is no file {path}: a published one is at gs://{PUBLIC_FOLDER}/{path.name} = "
            f"https://storage.googleapis.com/{PUBLIC_FOLDER}/{path.name}"
        )
    arrays = {name.removeprefix(_PREFIX): value for name, value in _read(path).items()}
    left_out = tuple(sorted(name for name in arrays if name.startswith(_CLASSIFIER)))
    kept = {f"backbone/{name}": _typed(value) for name, value in arrays.items() if name not in left_out}
    stored = StoredWeights(f"AugReg file {path.name}", kept, left_out=left_out)
    if describe_size(stored.shapes).startswith("hybrid"):
        raise UserError(f"{path} is a hybrid, a ViT behind a ResNet: use a file of a plain ViT (Ti, S, B or L)")
    return stored


def _read(path: Path) -> dict[str, np.ndarray]:
    try:
        with path.open("rb") as stream, np.load(stream) as file:
            return {name: file[name] for name in file.files}
    except (OSError, ValueError, TypeError, EOFError, AttributeError, zipfile.BadZipFile, zlib.error) as error:
        reason = f"{type(error).__name__}: {error}".splitlines()[0]
        raise UserError(f"cannot read {path} as weights ({reason}): give an AugReg .npz file") from error


def _typed(value: np.ndarray) -> np.ndarray:
    """NumPy has no bfloat16 and stores it as two untyped bytes."""
    return value.view(jnp.bfloat16) if value.dtype == np.dtype("V2") else value
