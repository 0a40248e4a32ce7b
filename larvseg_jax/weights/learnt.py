"""What a run has learnt on frozen weights, without these: they stay in the pretrained file (docs/weights.md).

A parameter is left out where the pretrained file has it bit for bit, as it is or rounded to float16 (a run may have
begun with a copy of half the size), whatever `optimizer.frozen` says. So nothing is lost: what was frozen but is in no
file (a fresh head, a resized position embedding) is written, too.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from pathlib import Path
from typing import NamedTuple

import jax.numpy as jnp
import numpy as np

from larvseg_jax.console import first_few, printable
from larvseg_jax.errors import UserError
from larvseg_jax.models.vit_config import ViTConfig
from larvseg_jax.weights.pretrained import read_weights
from larvseg_jax.weights.safetensors_file import SavedModel

_DIGITS = 16  # hexadecimal ones of each array's SHA-256
_SHOWN = 3  # names in a message


class Learnt(NamedTuple):
    """The two parts of a model's parameters.

    Attributes:
      arrays: path -> float16 array of those that the pretrained file has not.
      frozen: path -> digest of those that it has.
      source: the file and its kind, for people.
    """

    arrays: Mapping[str, np.ndarray]
    frozen: Mapping[str, str]
    source: str


def split_off(params: Mapping[str, np.ndarray], pretrained: Path, vit: ViTConfig, run: Path) -> Learnt:
    """Takes the weights of a pretrained file out of a run's parameters.

    Args:
      params: path ("head/gamma") -> float32 array.
      pretrained: any file or folder that `config.pretrained` takes.
      vit: options of the backbone.
      run: whose parameters they are, for messages.

    Raises:
      UserError: the file cannot be read or has none of these weights, or float16 cannot hold what was learnt.
    """
    stored = read_weights(pretrained, vit)
    digests = {path: _digest(value) for path, value in params.items()}
    frozen = {path: digests[path] for path in _matching(stored.arrays, digests)}
    if not frozen:
        raise UserError(
            f"{run} has no weights as {pretrained} has them: give the file that it began with by --pretrained, "
            "or export all of them (without --learnt)"
        )
    with np.errstate(over="ignore"):  # noticed below
        arrays = {path: value.astype(np.float16) for path, value in params.items() if path not in frozen}
    bad = sorted(path for path, value in arrays.items() if not np.isfinite(value).all())
    if bad:
        raise UserError(
            f"{run}: float16 cannot hold {first_few(bad, _SHOWN)}: export all in float32 (without --learnt)"
        )
    return Learnt(arrays, frozen, stored.source)


def all_weights(saved: SavedModel, file: Path, pretrained: Path | None, vit: ViTConfig) -> Mapping[str, np.ndarray]:
    """The parameters of an exported file, those that are not in it taken from the pretrained file.

    Args:
      saved: what the file holds.
      file: its path, for messages.
      pretrained: the pretrained file that it was learnt on; None where all is in the file.
      vit: options of the backbone.

    Raises:
      UserError: there is no pretrained file where one is needed, it is another one, or none is needed.
    """
    needed, source = saved.metadata.frozen, printable(saved.metadata.pretrained)
    if not needed:
        check_needs_none(file, pretrained)
        return dict(saved.params)
    if pretrained is None:
        raise UserError(f"{file} holds only what was learnt on {source}: give that file by --pretrained")
    if not pretrained.exists():
        raise UserError(f"there is no file {pretrained}: {file} was learnt on {source}; give that by --pretrained")
    found = _matching(read_weights(pretrained, vit).arrays, needed)
    other = sorted(needed.keys() - found.keys())
    if other:
        raise UserError(
            f"{pretrained} is not what {file} was learnt on ({source}): {len(other)} of {len(needed)} arrays are "
            f"others ({first_few(map(printable, other), _SHOWN)}): give that file by --pretrained"
        )
    return found | {path: np.asarray(value, np.float32) for path, value in saved.params.items()}


def check_needs_none(path: Path, pretrained: Path | None) -> None:
    """UserError if a pretrained file was given for a model that has all its weights."""
    if pretrained is not None:
        raise UserError(f"{path} has all its weights: leave --pretrained={pretrained} out")


def _matching(arrays: Mapping[str, np.ndarray], digests: Mapping[str, str]) -> dict[str, np.ndarray]:
    """Path -> float32 array of those that have their digest as they are, or rounded to float16."""
    found = {}
    for path, value in arrays.items():
        if path in digests and jnp.issubdtype(value.dtype, jnp.floating):
            with np.errstate(over="ignore", invalid="ignore"):
                for same in (np.asarray(value, np.float32), value.astype(np.float16).astype(np.float32)):
                    if _digest(same) == digests[path]:
                        found[path] = same
                        break
    return found


def _digest(value: np.ndarray) -> str:
    """Of shape and values of a float32 array, so that it does not matter which kind of file holds them."""
    sha = hashlib.sha256(f"{value.shape}".encode())
    sha.update(np.ascontiguousarray(value).reshape(-1).view(np.uint8).data)
    return sha.hexdigest()[:_DIGITS]
