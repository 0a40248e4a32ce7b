"""Checkpoints: all that a run needs to go on, and to be understood without it. Only own_checkpoint.py uses Orbax, too.

A checkpoint holds the train state, an exact digest of it (Orbax has no checksum: a changed byte would be
restored silently), and a record: config, class names, shapes and dtypes, data settings, versions, commit.
"""

from __future__ import annotations

import dataclasses
import importlib.metadata
import json
import logging
import subprocess
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import orbax.checkpoint as ocp
from orbax.checkpoint import checkpoint_managers

from larvseg_jax.distributed import is_first_process, wait_for_all
from larvseg_jax.errors import UserError
from larvseg_jax.train_state import TrainState

PACKAGES = (
    "jax",
    "flax",
    "optax",
    "orbax-checkpoint",
    "grain",
    "tensorflow-datasets",
    "numpy",
    "opencv-python-headless",
)


_REMEDY = "give this run another workdir, or move the folder away"


class DamagedCheckpoint(UserError):
    """A checkpoint that cannot be read, or whose bytes are not those that were written."""


@dataclasses.dataclass(frozen=True)
class Record:
    """What a checkpoint says about itself.

    Attributes:
      settings: the config, as plain values.
      classes: class names in row order.
      data: what makes the batch of step i: seed, streams, batch sizes, number of pictures.
      arrays: path -> "dtype[shape]" of every leaf of the state.
      versions: of Python's packages, and the commit of the code.
    """

    settings: Mapping[str, Any]
    classes: tuple[str, ...]
    data: Mapping[str, Any]
    arrays: Mapping[str, str]
    versions: Mapping[str, str]

    @classmethod
    def of(
        cls, settings: Mapping[str, Any], classes: tuple[str, ...], data: Mapping[str, Any], state: TrainState
    ) -> Record:
        """The record of a run as it is now."""
        return cls(_plain(settings), classes, _plain(data), describe(state), versions())

    @classmethod
    def from_json(cls, text: Mapping[str, Any]) -> Record:
        """Reads what `dataclasses.asdict` wrote."""
        return cls(**{**text, "classes": tuple(text["classes"])})


class Checkpoints:
    """The checkpoints of one run: the last few and the one with the best mIoU. Use as a context manager.

    With read_only=True nothing in the folder is touched, so that a run that is still training can be read.
    """

    def __init__(self, workdir: Path, keep_last: int = 2, *, read_only: bool = False) -> None:
        self._folder = (workdir / "checkpoints").absolute()
        if not read_only:
            try:
                self._folder.mkdir(parents=True, exist_ok=True)
            except OSError as error:
                raise UserError(f"cannot write {self._folder} ({error.strerror}): give another workdir") from error
        policies = checkpoint_managers
        best = policies.BestN(get_metric_fn=lambda m: m["mIoU"], n=1, keep_checkpoints_without_metrics=False)
        keep = policies.AnyPreservationPolicy([policies.LatestN(keep_last), best])
        # What an interrupted save left behind is removed, but never by a reader: it may be a save under way.
        options = ocp.CheckpointManagerOptions(
            preservation_policy=keep,
            create=not read_only,
            cleanup_tmp_directories=not read_only,
            enable_async_checkpointing=True,
        )
        self._manager = ocp.CheckpointManager(self._folder, options=options)

    def __enter__(self) -> Checkpoints:
        return self

    def __exit__(self, *_: object) -> None:
        # Leaving without waiting would lose the save that is under way.
        self._manager.wait_until_finished()
        self._manager.close()

    def steps(self) -> list[int]:
        """Steps of which there is a checkpoint, ascending."""
        return sorted(self._manager.all_steps())

    def choose(self, step: int | None) -> int:
        """The step asked for, the newest if it is None; UserError if there is no such checkpoint."""
        steps = self.steps()
        if not steps or step not in (None, *steps):
            run = self._folder.parent
            raise UserError(f"{run} has no checkpoint of step {step}: it has {steps or 'none at all'}")
        return steps[-1] if step is None else step

    def save(self, state: TrainState, record: Record, step: int, miou: float | None) -> None:
        """Starts writing in the background; a step that is there already is left as it is."""
        if step in self._manager.all_steps():
            return
        digests = [int(v) for v in jax.device_get(jax.tree.leaves(digest(state)))]
        items = ocp.args.Composite(
            state=ocp.args.StandardSave(state),
            digest=ocp.args.JsonSave({"leaves": digests}),
            record=ocp.args.JsonSave(dataclasses.asdict(record)),
        )
        self._manager.save(step, args=items, metrics=None if miou is None else {"mIoU": miou})

    def record(self, step: int) -> Record:
        """The record of a checkpoint; UserError if it cannot be read."""
        try:
            item = self._manager.restore(step, args=ocp.args.Composite(record=ocp.args.JsonRestore()))
            return Record.from_json(item["record"])
        except Exception as error:
            raise DamagedCheckpoint(
                f"{self._folder / str(step)} has no readable record ({type(error).__name__}): "
                "not a checkpoint of larvseg_jax, or damaged; remove it or use another --step"
            ) from error

    def restore(self, step: int, template: TrainState) -> TrainState:
        """The state of a step, laid out like `template` (`train_state.state_layout`).

        UserError if its arrays differ in name, shape or dtype (all differences at once);
        DamagedCheckpoint if it cannot be read or is not what was written.
        """
        self._check_arrays(step, self.record(step), template)
        try:
            items = ocp.args.Composite(state=ocp.args.StandardRestore(template), digest=ocp.args.JsonRestore())
            restored = self._manager.restore(step, args=items)
        except Exception as error:
            raise DamagedCheckpoint(
                f"{self._folder / str(step)} cannot be read ({type(error).__name__}): use another step"
            ) from error
        digests = [int(v) for v in jax.device_get(jax.tree.leaves(digest(restored["state"])))]
        if digests != restored["digest"]["leaves"]:
            raise DamagedCheckpoint(
                f"{self._folder / str(step)} is damaged: its digest does not match; use another step"
            )
        return restored["state"]

    def restore_latest(self, template: TrainState, expected: Record) -> TrainState | None:
        """The newest undamaged state, or None if there is no checkpoint at all; newer, damaged ones are set aside.

        UserError if the newest readable one belongs to another vocabulary, model or data order.
        """
        problems = []
        for step in reversed(self.steps()):
            try:
                record = self.record(step)
                check_same_vocabulary(record, expected.classes, self._folder)
                _check_same_data(record, expected, self._folder)
                state = self.restore(step, template)
                self._set_aside([s for s in self.steps() if s > step])
                return state
            except DamagedCheckpoint as error:
                logging.warning("%s; trying the one before", error)
                problems.append(str(error))
        if problems:
            raise UserError(f"no usable checkpoint: {problems[0]}; move the folder away to start afresh")
        return None

    def _set_aside(self, steps: list[int]) -> None:
        """Moves damaged checkpoints to workdir/damaged: where they are, no step up to theirs would be saved again."""
        for step in steps if is_first_process() else ():
            damaged = self._folder.parent / "damaged"
            damaged.mkdir(exist_ok=True)
            (self._folder / str(step)).rename(tempfile.mkdtemp(prefix=f"{step}_", dir=damaged))
        if steps:
            wait_for_all("set aside")
            self._manager.reload()

    def _check_arrays(self, step: int, record: Record, template: TrainState) -> None:
        found, wanted = record.arrays, describe(template)
        differences = [
            f"{path}: checkpoint {found.get(path, 'has none')}, run {wanted.get(path, 'has none')}"
            for path in sorted(found.keys() | wanted.keys())
            if found.get(path) != wanted.get(path)
        ]
        if differences:
            more = f"; and {len(differences) - 12} more" if len(differences) > 12 else ""
            shown = "; ".join(differences[:12]) + more
            raise UserError(f"{self._folder / str(step)} does not fit this model: {shown}")


def check_same_vocabulary(found: Record, classes: tuple[str, ...], folder: Path) -> None:
    """UserError if a checkpoint was trained with other classes, or with the same in another order."""
    if found.classes != classes:
        differing = sorted(set(classes) ^ set(found.classes))[:3]
        raise UserError(
            f"{folder} was trained with another vocabulary ({len(found.classes)} classes, here {len(classes)}; "
            f"{f'differing: {differing}' if differing else 'the same names in another order'}): {_REMEDY}"
        )


def _check_same_data(found: Record, expected: Record, folder: Path) -> None:
    for key in sorted(found.data.keys() | expected.data.keys()):
        was, is_now = found.data.get(key), expected.data.get(key)
        if was != is_now:
            raise UserError(f"{folder} was trained with {key}={was}, here {is_now}: {_REMEDY}, or change it back")


def describe(state: TrainState) -> dict[str, str]:
    """Path -> dtype[shape] of every leaf."""
    leaves = jax.tree_util.tree_leaves_with_path(state)
    return {jax.tree_util.keystr(path): f"{leaf.dtype}{list(leaf.shape)}" for path, leaf in leaves}


@jax.jit
def digest(tree: Any) -> Any:
    """One uint32 per leaf, whatever the sharding: the wrap-around sum of bits times position.

    The weights are odd, so that every single changed bit changes the sum. No array is flattened: one that is split
    would have to be gathered first.
    """

    def one(x: jax.Array) -> jax.Array:
        unsigned = {1: jnp.uint8, 2: jnp.uint16, 4: jnp.uint32}[x.dtype.itemsize]
        bits = jax.lax.bitcast_convert_type(x, unsigned).astype(jnp.uint32)
        position, stride = jnp.zeros(x.shape, jnp.uint32), 1
        for axis in reversed(range(x.ndim)):
            position += jax.lax.broadcasted_iota(jnp.uint32, x.shape, axis) * jnp.uint32(stride % 2**32)
            stride *= x.shape[axis]
        weights = position * jnp.uint32(2 * 2654435761 % 2**32) + jnp.uint32(1)
        return jnp.sum(bits * weights, dtype=jnp.uint32)

    return jax.tree.map(one, tree)


def versions() -> dict[str, str]:
    """Versions of the packages that the numbers depend on, and the commit of this code."""
    found = {name: importlib.metadata.version(name) for name in PACKAGES}
    git = ["git", "-C", str(Path(__file__).parent), "describe", "--always", "--dirty", "--abbrev=10"]
    try:
        found["commit"] = subprocess.run(git, capture_output=True, text=True, check=True).stdout.strip()
    except (OSError, subprocess.CalledProcessError):
        found["commit"] = "unknown"
    return found


def _plain(settings: Mapping[str, Any]) -> dict[str, Any]:
    """As JSON gives it back: tuples become lists, so that records compare equal."""
    return json.loads(json.dumps(settings))
