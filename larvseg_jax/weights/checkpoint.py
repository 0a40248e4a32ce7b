"""Checkpoints: all that a run needs to go on, and to be understood without it. Orbax: here and in stored_checkpoint.py.

A checkpoint holds the train state, an exact digest of it (Orbax has no checksum: a changed byte would be
restored silently), and a record: config, class names, shapes and dtypes, data settings, versions, commit.
"""

from __future__ import annotations

import dataclasses
import logging
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import jax
import orbax.checkpoint as ocp
from orbax.checkpoint import checkpoint_managers

from larvseg_jax.console import first_few
from larvseg_jax.devices.processes import is_first_process, wait_for_all
from larvseg_jax.errors import UserError
from larvseg_jax.training.state import TrainState
from larvseg_jax.weights.digest import digest
from larvseg_jax.weights.record import Record, check_same_data, check_same_vocabulary, describe


class DamagedCheckpoint(UserError):
    """A checkpoint that cannot be read, or whose bytes are not those that were written."""


class Checkpoints:
    """The checkpoints of one run: the last few and the one with the best score. Use as a context manager.

    With read_only=True nothing in the folder is touched, so that a run that is still training can be read.
    """

    def __init__(self, workdir: Path, keep_last: int = 2, best: str = "mIoU", *, read_only: bool = False) -> None:
        """`keep_last`: how many; `best`: the name of the score, a larger one being better."""
        self._folder = (workdir / "checkpoints").absolute()
        if not read_only:
            try:
                self._folder.mkdir(parents=True, exist_ok=True)
            except OSError as error:
                raise UserError(f"cannot write {self._folder} ({error.strerror}): give another workdir") from error
        policies = checkpoint_managers
        self._best = best
        best_one = policies.BestN(get_metric_fn=lambda m: m[best], n=1, keep_checkpoints_without_metrics=False)
        keep = policies.AnyPreservationPolicy([policies.LatestN(keep_last), best_one])
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

    def save(self, record: Record, state: TrainState, step: int, score: float | None) -> None:
        """Starts writing in the background; a step that is there already is left as it is."""
        if step in self._manager.all_steps():
            return
        digests = [int(v) for v in jax.device_get(jax.tree.leaves(digest(state)))]
        items = ocp.args.Composite(
            state=ocp.args.StandardSave(state),
            digest=ocp.args.JsonSave({"leaves": digests}),
            record=ocp.args.JsonSave(dataclasses.asdict(record)),
        )
        self._manager.save(step, args=items, metrics=None if score is None else {self._best: score})

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
        """The state of a step, laid out like `template` (`training.state.state_layout`).

        UserError if its arrays differ in name, shape or dtype (all differences at once);
        DamagedCheckpoint if it cannot be read or is not what was written.
        """
        record = self.record(step)
        self._check_arrays(step, record, template)
        now, then = "memory", record.memory_name
        old = then != now
        stored = _renamed(vars(template), now, then) if old else template
        try:
            items = ocp.args.Composite(state=ocp.args.StandardRestore(stored), digest=ocp.args.JsonRestore())
            restored = self._manager.restore(step, args=items)
        except Exception as error:
            raise DamagedCheckpoint(
                f"{self._folder / str(step)} cannot be read ({type(error).__name__}): use another step"
            ) from error
        state = TrainState(**_renamed(restored["state"], then, now)) if old else restored["state"]
        digests = [int(v) for v in jax.device_get(jax.tree.leaves(digest(state)))]
        if digests != restored["digest"]["leaves"]:
            raise DamagedCheckpoint(
                f"{self._folder / str(step)} is damaged: its digest does not match; use another step"
            )
        return state

    def restore_latest(self, template: TrainState, expected: Record) -> TrainState | None:
        """The newest undamaged state, or None if there is no checkpoint at all; newer, damaged ones are set aside.

        UserError if the newest readable one belongs to another vocabulary, model or data order.
        """
        problems = []
        for step in reversed(self.steps()):
            try:
                record = self.record(step)
                check_same_vocabulary(record, expected.classes, self._folder)
                check_same_data(record, expected, self._folder)
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
            shown = first_few(differences, 12, separator="; ")
            raise UserError(f"{self._folder / str(step)} does not fit this model: {shown}")


def _renamed(fields: Mapping[str, Any], old: str, new: str) -> dict[str, Any]:
    return {new if name == old else name: value for name, value in fields.items()}
