"""Loads AugReg weights (google-research/vision_transformer, .npz) into the backbone (docs/method.md, section 2)."""

from __future__ import annotations

import dataclasses
import math
import zipfile
import zlib
from collections.abc import Mapping
from pathlib import Path

import jax.numpy as jnp
import numpy as np
from flax import traverse_util
from jaxtyping import PyTree

from larvseg_jax.errors import UserError
from larvseg_jax.models.vit import resize_position_embedding

POSITION_EMBEDDING = "Transformer/posembed_input/pos_embedding"
_PREFIX = "opt/target/"  # in files saved with their optimizer
_CLASSIFIER = ("head/", "pre_logits/")  # of the data set the file was trained on


@dataclasses.dataclass(frozen=True)
class LoadReport:
    """What was done with a file.

    Attributes:
      file: its name.
      loaded: names of the arrays taken.
      ignored: names of those left out, the classifier of the old data set.
      resized: "24x24 -> 32x32" where the position embedding was resized, else "".
      dtypes: dtypes found in the file; the parameters are float32.
    """

    file: str
    loaded: tuple[str, ...]
    ignored: tuple[str, ...]
    resized: str
    dtypes: tuple[str, ...]

    def __str__(self) -> str:
        parts = [f"{len(self.loaded)} arrays ({', '.join(self.dtypes)}) from {self.file}"]
        if self.resized:
            parts.append(f"position embedding resized {self.resized}")
        if self.ignored:
            parts.append(f"left out: {', '.join(self.ignored)}")
        return "; ".join(parts)


def load_augreg(path: str | Path, backbone_params: PyTree, stored_grid: tuple[int, int]) -> tuple[PyTree, LoadReport]:
    """The backbone's parameters, float32 NumPy arrays, taken from an AugReg file.

    A position embedding stored for another grid is resized bicubically to `stored_grid`, the class
    token's entry kept. The forward pass resizes once more to the grid of its pictures, as in the original.

    Args:
      path: the .npz file; a prefix "opt/target/" of its names is dropped.
      backbone_params: the parameters to replace; only their names and shapes count.
      stored_grid: patch grid of the backbone's position embedding.

    Raises:
      UserError: the file cannot be read, or it does not fit (all differences in one line).
        `Original:` missing and unknown arrays are only logged.
    """
    arrays = _read(Path(path))
    ignored = tuple(sorted(name for name in arrays if name.startswith(_CLASSIFIER)))
    arrays = {name: value for name, value in arrays.items() if name not in ignored}
    flat = traverse_util.flatten_dict(backbone_params, sep="/")
    wanted = {name: x.shape for name, x in flat.items()}
    resized = _resize_position_embedding(arrays, wanted, stored_grid)
    differences = _differences(arrays, wanted)
    if differences:
        raise UserError(
            f"{path} does not fit the backbone: {'; '.join(differences)}; use the file of the configured model size"
        )
    params = {name: np.asarray(value, np.float32) for name, value in arrays.items()}
    dtypes = tuple(sorted({str(value.dtype) for value in arrays.values()}))
    report = LoadReport(Path(path).name, tuple(sorted(params)), ignored, resized, dtypes)
    return traverse_util.unflatten_dict(params, sep="/"), report


def _read(path: Path) -> dict[str, np.ndarray]:
    try:
        with path.open("rb") as stream, np.load(stream) as file:
            arrays = {name: file[name] for name in file.files}
    except (OSError, ValueError, TypeError, EOFError, zipfile.BadZipFile, zlib.error) as error:
        reason = f"{type(error).__name__}: {error}".splitlines()[0]
        raise UserError(f"cannot read {path} as weights ({reason}): give an AugReg .npz file") from error
    return {name.removeprefix(_PREFIX): value for name, value in arrays.items()}


def _resize_position_embedding(
    arrays: dict[str, np.ndarray], wanted: Mapping[str, tuple[int, ...]], stored_grid: tuple[int, int]
) -> str:
    """Resizes it in `arrays` if it is that of another, square grid; says from what to what."""
    value = arrays.get(POSITION_EMBEDDING)
    if value is None or value.ndim != 3 or value.shape == wanted[POSITION_EMBEDDING]:
        return ""
    side = math.isqrt(max(value.shape[1] - 1, 0))
    fits = value.shape[0] == 1 and 0 < side**2 == value.shape[1] - 1
    if not fits or not np.issubdtype(value.dtype, np.floating):
        return ""
    embedding = jnp.asarray(value, jnp.float32)
    arrays[POSITION_EMBEDDING] = np.asarray(resize_position_embedding(embedding, (side, side), stored_grid))
    return f"{side}x{side} -> {stored_grid[0]}x{stored_grid[1]}"


def _differences(arrays: Mapping[str, np.ndarray], wanted: Mapping[str, tuple[int, ...]]) -> list[str]:
    found = [f"{name} is missing" for name in sorted(wanted.keys() - arrays.keys())]
    found += [f"{name} is not known" for name in sorted(arrays.keys() - wanted.keys())]
    for name in sorted(wanted.keys() & arrays.keys()):
        theirs = arrays[name]
        if theirs.shape != wanted[name]:
            found.append(f"{name} has shape {theirs.shape} and not {wanted[name]}")
        elif not np.issubdtype(theirs.dtype, np.floating):
            found.append(f"{name} is {theirs.dtype} and not a floating-point array")
    return found
