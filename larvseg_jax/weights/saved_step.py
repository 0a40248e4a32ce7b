"""One checkpoint on disk, read and checked: its record, its digests, its arrays. Orbax reads; it has no checksums.

Everything is covered: the arrays by a digest each, what the checkpoint says of itself by a SHA-256 of its record.
"""

from __future__ import annotations

import contextlib
import dataclasses
import hashlib
import json
import sys
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import jax
import orbax.checkpoint as ocp

from larvseg_jax.console import first_few
from larvseg_jax.errors import UserError
from larvseg_jax.training.state import TrainState
from larvseg_jax.weights.digest import digest
from larvseg_jax.weights.record import Record, describe

STATE, DIGEST, RECORD = "state", "digest", "record"
"""Folders of a checkpoint."""


class DamagedCheckpoint(UserError):
    """A checkpoint that cannot be read, or whose bytes are not those that were written."""


def steps_in(checkpoints: Path) -> list[int]:
    """Steps of which there is a finished checkpoint in a folder, ascending."""
    return sorted(ocp.utils.checkpoint_steps(checkpoints)) if checkpoints.is_dir() else []


def to_write(record: Record, state: TrainState) -> ocp.args.Composite:
    """What a checkpoint consists of."""
    said = dataclasses.asdict(record)
    digests = {"leaves": [int(v) for v in jax.device_get(jax.tree.leaves(digest(state)))], "record": _sha256(said)}
    items = {STATE: ocp.args.StandardSave(state), DIGEST: ocp.args.JsonSave(digests), RECORD: ocp.args.JsonSave(said)}
    return ocp.args.Composite(**items)


def read_record(folder: Path) -> Record:
    """What a checkpoint says of itself; `folder` ends in its step. DamagedCheckpoint if it is not what was written."""
    try:
        json.loads((folder / "_CHECKPOINT_METADATA").read_text()).items()  # Orbax's own, which it reads unchecked
        said = _read_json(folder / RECORD)
        record = Record.from_json(said)
    except Exception as error:
        raise DamagedCheckpoint(
            f"{folder} has no readable record ({type(error).__name__}): "
            "not a checkpoint of larvseg_jax, or damaged; remove it or use another --step"
        ) from error
    if record.step is None:  # of the code before records were covered
        return record
    if read_digests(folder)[1] != _sha256(said):
        raise DamagedCheckpoint(f"{folder} is damaged: its record is not what was written; use another step")
    if str(record.step) != folder.name:
        raise DamagedCheckpoint(f"{folder} is the checkpoint of step {record.step}: call its folder {record.step}")
    return record


def read_digests(folder: Path) -> tuple[list[int], str]:
    """The digest of every array, and the SHA-256 of the record ("" where there is none)."""
    try:
        digests = _read_json(folder / DIGEST)
        leaves, record = list(digests["leaves"]), digests.get("record", "")
        if any(type(value) is not int for value in leaves):
            raise TypeError
    except Exception as error:
        raise DamagedCheckpoint(f"{folder} is damaged: it has no readable digest; use another step") from error
    return leaves, record


def read_state(folder: Path, template: TrainState) -> TrainState:
    """The state of a checkpoint, laid out like `template` (`training.state.state_layout`).

    UserError if its arrays differ in name, shape or dtype (all differences at once);
    DamagedCheckpoint if it cannot be read or is not what was written.
    """
    record, (digests, _) = read_record(folder), read_digests(folder)
    _check_arrays(folder, record, template)
    now, then = "memory", record.memory_name
    old = then != now
    stored = _renamed(vars(template), now, then) if old else template
    try:
        with quiet_reading(), ocp.Checkpointer(ocp.StandardCheckpointHandler()) as reader:
            restored = reader.restore(folder / STATE, args=ocp.args.StandardRestore(stored))
    except Exception as error:
        raise DamagedCheckpoint(f"{folder} cannot be read ({type(error).__name__}): use another step") from error
    state = TrainState(**_renamed(restored, then, now)) if old else restored
    if [int(v) for v in jax.device_get(jax.tree.leaves(digest(state)))] != digests:
        raise DamagedCheckpoint(f"{folder} is damaged: its digest does not match; use another step")
    return state


@contextlib.contextmanager
def quiet_reading() -> Iterator[None]:
    """Around Orbax's reading: where one array fails, those on their way find its loop gone, and say so at length."""
    before = sys.unraisablehook

    def hook(unraisable: Any) -> None:
        if not (isinstance(unraisable.exc_value, RuntimeError) and "Event loop is closed" in str(unraisable.exc_value)):
            before(unraisable)

    sys.unraisablehook = hook
    yield
    sys.unraisablehook = before  # not after an error: the others are still on their way


def _check_arrays(folder: Path, record: Record, template: TrainState) -> None:
    found, wanted = record.arrays, describe(template)
    differences = [
        f"{path}: checkpoint {found.get(path, 'has none')}, run {wanted.get(path, 'has none')}"
        for path in sorted(found.keys() | wanted.keys())
        if found.get(path) != wanted.get(path)
    ]
    if differences:
        raise UserError(f"{folder} does not fit this model: {first_few(differences, 12, separator='; ')}")


def _read_json(folder: Path) -> Mapping[str, Any]:
    """What Orbax's JsonSave has written."""
    found = json.loads((folder / "metadata").read_text(encoding="utf-8"))
    if not isinstance(found, Mapping):
        raise TypeError(type(found).__name__)
    return found


def _sha256(said: Mapping[str, Any]) -> str:
    """Of the values, not of their spelling."""
    return hashlib.sha256(json.dumps(said, sort_keys=True).encode()).hexdigest()


def _renamed(fields: Mapping[str, Any], old: str, new: str) -> dict[str, Any]:
    return {new if name == old else name: value for name, value in fields.items()}
