"""Reads the arrays of a checkpoint of ours without rebuilding its run.

Neither the optimizer state nor the devices it was trained on are needed: arrays come as NumPy's.
"""

from __future__ import annotations

import dataclasses
import logging
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import orbax.checkpoint as ocp
from flax import traverse_util

from larvseg_jax.weights.checkpoint import Checkpoints
from larvseg_jax.weights.digest import digest
from larvseg_jax.weights.places import find_run
from larvseg_jax.weights.record import Record
from larvseg_jax.weights.saved_step import STATE, DamagedCheckpoint, quiet_reading, read_digests, read_record
from larvseg_jax.weights.stored_weights import StoredWeights, pixels_of


@dataclasses.dataclass(frozen=True)
class StoredCheckpoint:
    """What was read.

    Attributes:
      params: path ("head/gamma") -> array. Tables with a row per class may have more rows, which only fill up.
      memory: the same for the method's memory; empty unless asked for.
      record: what the checkpoint says about itself.
      folder: of the run.
      step: after how many steps.
    """

    params: Mapping[str, np.ndarray]
    memory: Mapping[str, np.ndarray]
    record: Record
    folder: Path
    step: int

    @property
    def weights(self) -> StoredWeights:
        """The parameters, to start a training from."""
        source, pixels = f"checkpoint {self.folder}, step {self.step}", pixels_of(self.record.settings)
        return StoredWeights(source, self.params, self.record.classes, pixels=pixels)


def read_checkpoint(path: Path, step: int | None = None, *, memory: bool = False) -> StoredCheckpoint:
    """Reads a checkpoint, given by the folder of its run (the newest, or that of `step`) or by its own folder.

    A damaged one is passed over for the one before, which is said; one that was asked for is not.

    Raises:
      UserError: the folder is neither, or has no such step.
      DamagedCheckpoint: it cannot be read, or is not what was written.
    """
    folder, step = find_run(path, step)
    with Checkpoints(folder, read_only=True) as checkpoints:
        newest = checkpoints.choose(step)
        steps = [newest] if step is not None else list(reversed(checkpoints.steps()))
    problem: DamagedCheckpoint | None = None
    for number in steps:
        try:
            return _read(folder, number, memory)
        except DamagedCheckpoint as error:
            if number != steps[-1]:
                logging.warning("%s; reading the one before", error)
            problem = problem or error
    assert problem is not None
    raise problem


def _read(run: Path, step: int, memory: bool) -> StoredCheckpoint:
    folder = run / "checkpoints" / str(step)
    record = read_record(folder)
    parts = ("params", "memory") if memory else ("params",)
    leaves = _read_leaves(folder, record, parts)
    found = [{"/".join(keys[1:]): value for keys, value in leaves.items() if keys[0] == part} for part in parts]
    return StoredCheckpoint(found[0], found[1] if memory else {}, record, run, step)


def _read_leaves(folder: Path, record: Record, parts: tuple[str, ...]) -> dict[tuple[str, ...], np.ndarray]:
    """The leaves of some fields of the state, checked against their digests."""
    places = {i: path for i, path in enumerate(record.arrays) if _keys(path)[0] in parts}
    layout = {_keys(path): _shape(record.arrays[path]) for path in places.values()}
    stored = {_renamed(keys, "memory", record.memory_name): shape for keys, shape in layout.items()}
    tree = traverse_util.unflatten_dict(stored)
    as_numpy = jax.tree.map(lambda _: ocp.RestoreArgs(restore_type=np.ndarray), tree)
    try:
        with quiet_reading(), ocp.Checkpointer(ocp.PyTreeCheckpointHandler()) as reader:
            only = ocp.args.PyTreeRestore(tree, restore_args=as_numpy, partial_restore=True)
            found = traverse_util.flatten_dict(reader.restore(folder / STATE, args=only))
    except Exception as error:
        raise DamagedCheckpoint(f"{folder} cannot be read ({type(error).__name__}): use another step") from error
    expected, _ = read_digests(folder)
    leaves = {_renamed(keys, record.memory_name, "memory"): value for keys, value in found.items()}
    digests = digest({path: leaves[_keys(path)] for path in places.values()})
    wrong = [path for place, path in places.items() if expected[place : place + 1] != [int(digests[path])]]
    if wrong:
        raise DamagedCheckpoint(f"{folder} is damaged: the digest of {wrong[0]} does not match; use another step")
    return leaves


def _renamed(keys: tuple[str, ...], old: str, new: str) -> tuple[str, ...]:
    return (new, *keys[1:]) if keys[0] == old else keys


def _keys(path: str) -> tuple[str, ...]:
    """.params['head']['gamma'] -> ("params", "head", "gamma")."""
    return tuple(re.findall(r"\w+", path))


def _shape(text: str) -> Any:
    """float32[16, 3] as `checkpoint.describe` writes it."""
    dtype, *sizes = re.findall(r"\w+", text)
    return jax.ShapeDtypeStruct(tuple(map(int, sizes)), jnp.dtype(dtype))
