"""Reads the weights (and the bank) of a checkpoint of ours without rebuilding its run.

Neither the optimizer state nor the devices it was trained on are needed: arrays come as NumPy's.
"""

from __future__ import annotations

import dataclasses
import re
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import orbax.checkpoint as ocp
from flax import traverse_util

from larvseg_jax.checkpoint import Checkpoints, DamagedCheckpoint, Record, digest
from larvseg_jax.errors import UserError
from larvseg_jax.memory_bank import MemoryBank
from larvseg_jax.stored_weights import CLASS_EMBEDDINGS, StoredWeights


@dataclasses.dataclass(frozen=True)
class OwnCheckpoint:
    """What was read.

    Attributes:
      weights: the parameters, class embeddings cut to the rows that have a class.
      bank: the memory bank, cut likewise; None unless asked for.
      record: what the checkpoint says about itself.
      folder: of the run.
      step: after how many steps.
    """

    weights: StoredWeights
    bank: MemoryBank | None
    record: Record
    folder: Path
    step: int


def read_checkpoint(path: Path, step: int | None = None, *, bank: bool = False) -> OwnCheckpoint:
    """Reads a checkpoint, given by the folder of its run (the newest, or that of `step`) or by its own folder.

    Raises:
      UserError: the folder is neither, or has no such step.
      DamagedCheckpoint: it cannot be read, or its digest does not match.
    """
    folder, step = _find(path, step)
    with Checkpoints(folder, read_only=True) as checkpoints:
        step = checkpoints.choose(step)
        record = checkpoints.record(step)
    leaves = _read_leaves(folder / "checkpoints" / str(step), record, (".params", ".bank") if bank else (".params",))
    rows = len(record.classes)
    params = {"/".join(path[1:]): value for path, value in leaves.items() if path[0] == "params"}
    params[CLASS_EMBEDDINGS] = params[CLASS_EMBEDDINGS][:rows]
    kept = {path[1]: value[:rows] for path, value in leaves.items() if path[0] == "bank"}
    weights = StoredWeights(f"checkpoint {folder}, step {step}", params, record.classes)
    return OwnCheckpoint(weights, MemoryBank(**kept) if bank else None, record, folder, step)


def _find(path: Path, step: int | None) -> tuple[Path, int | None]:
    """The folder of the run, and the step if the path says it."""
    path = path.absolute()
    if (path / "checkpoints").is_dir():
        return path, step
    if path.parent.name == "checkpoints" and path.name.isdecimal() and path.is_dir():
        if step not in (None, int(path.name)):
            raise UserError(f"{path} is not the checkpoint of step {step}: leave one of the two out")
        return path.parent.parent, int(path.name)
    raise UserError(
        f"{path} is no run and no checkpoint: give a folder with checkpoints/ in it, or one like runs/x/checkpoints/800"
    )


def _read_leaves(folder: Path, record: Record, parts: tuple[str, ...]) -> dict[tuple[str, ...], np.ndarray]:
    """The leaves of some parts of the state, checked against their digests."""
    places = {i: path for i, path in enumerate(record.arrays) if path.startswith(parts)}
    layout = {_keys(path): _shape(record.arrays[path]) for path in places.values()}
    tree = traverse_util.unflatten_dict(layout)
    as_numpy = jax.tree.map(lambda _: ocp.RestoreArgs(restore_type=np.ndarray), tree)
    try:
        with ocp.Checkpointer(ocp.PyTreeCheckpointHandler()) as reader:
            only = ocp.args.PyTreeRestore(tree, restore_args=as_numpy, partial_restore=True)
            leaves = traverse_util.flatten_dict(reader.restore(folder / "state", args=only))
        with ocp.Checkpointer(ocp.JsonCheckpointHandler()) as reader:
            expected = reader.restore(folder / "digest", args=ocp.args.JsonRestore())["leaves"]
    except Exception as error:
        raise DamagedCheckpoint(f"{folder} cannot be read ({type(error).__name__}): use another step") from error
    digests = digest({path: leaves[_keys(path)] for path in places.values()})
    wrong = [path for place, path in places.items() if int(digests[path]) != expected[place]]
    if wrong:
        raise DamagedCheckpoint(f"{folder} is damaged: the digest of {wrong[0]} does not match; use another step")
    return leaves


def _keys(path: str) -> tuple[str, ...]:
    """.params['head']['gamma'] -> ("params", "head", "gamma")."""
    return tuple(re.findall(r"\w+", path))


def _shape(text: str) -> Any:
    """float32[16, 3] as `checkpoint.describe` writes it."""
    dtype, *sizes = re.findall(r"\w+", text)
    return jax.ShapeDtypeStruct(tuple(map(int, sizes)), jnp.dtype(dtype))
