"""Reads AugReg weights: the .npz files of google-research/vision_transformer (docs/weights.md)."""

from __future__ import annotations

import io
import zipfile
from collections.abc import Mapping
from pathlib import Path

import jax.numpy as jnp
import numpy as np

from larvseg_jax.errors import UserError
from larvseg_jax.weights.foreign import REMEDY, whose
from larvseg_jax.weights.stored_weights import POSITIONS, StoredWeights, describe_size
from larvseg_jax.weights.zip_members import check_members, read_member

PUBLIC_FOLDER = "vit_models/augreg"
_PREFIXES = ("opt/target/", "params/")  # of files saved with their optimizer, by older and by newer code
_MARKS = ("cls", POSITIONS.removeprefix("backbone/"))  # one of them is in every AugReg file, under its prefix
_CLASSIFIER = ("head/", "pre_logits/")  # of the data set the file was trained on


def read_npz(path: Path) -> dict[str, np.ndarray]:
    """The arrays of an .npz file, whosever they are.

    Raises:
      UserError: there is no such file (the message says where the published one is), or it cannot be read.
    """
    if not path.exists():
        raise UserError(
            f"there is no file {path}: a published one is at gs://{PUBLIC_FOLDER}/{path.name} = "
            f"https://storage.googleapis.com/{PUBLIC_FOLDER}/{path.name}"
        )
    return _read(path)


def read_augreg(path: Path) -> StoredWeights:
    """The backbone in an AugReg file: UserError as of `read_npz` and `augreg_weights`."""
    return augreg_weights(path, read_npz(path))


def augreg_weights(path: Path, found: Mapping[str, np.ndarray]) -> StoredWeights:
    """The backbone among the arrays of a file; the classifier of its old data set is left out.

    Raises:
      UserError: it holds weights of another family, or it is one of the hybrids (R_Ti/16, R26+S/32, ...), which begin
        with a ResNet.
    """
    prefix = next((prefix for prefix in _PREFIXES for mark in _MARKS if f"{prefix}{mark}" in found), "")
    arrays = {name.removeprefix(prefix): value for name, value in found.items()}
    if not arrays.keys() & set(_MARKS) and (owner := whose(arrays)):
        raise UserError(f"{path} holds {owner}: {REMEDY}")
    left_out = tuple(sorted(name for name in arrays if name.startswith(_CLASSIFIER)))
    kept = {f"backbone/{name}": value for name, value in arrays.items() if name not in left_out}
    stored = StoredWeights(f"AugReg file {path.name}", kept, left_out=left_out, pixels="half")
    if describe_size(stored.shapes).startswith("hybrid"):
        raise UserError(f"{path} is a hybrid, a ViT behind a ResNet: use a file of a plain ViT (Ti, S, B or L)")
    return stored


def _read(path: Path) -> dict[str, np.ndarray]:
    try:
        with zipfile.ZipFile(path) as archive:
            check_members(archive, path)
            return {name.removesuffix(".npy"): _array(read_member(archive, name)) for name in archive.namelist()}
    except Exception as error:  # whatever a damaged or hostile archive or header may provoke
        reason = " ".join(f"{type(error).__name__}: {error}".split())[:200]
        raise UserError(f"cannot read {path} as weights ({reason}): give an AugReg .npz file") from error


def _array(content: bytes) -> np.ndarray:
    """The array of a .npy file; NumPy has no bfloat16 and stores it as two untyped bytes."""
    value = np.lib.format.read_array(io.BytesIO(content), allow_pickle=False)
    return value.view(jnp.bfloat16) if value.dtype == np.dtype("V2") else value
