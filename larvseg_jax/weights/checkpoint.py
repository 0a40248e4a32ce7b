"""The checkpoints of a run: which are kept, which one a run goes on from. Orbax writes them.

A checkpoint holds the train state, a record (config, class names, shapes and dtypes, data settings, scores, versions,
commit) and exact digests of both (weights/saved_step.py).
"""

from __future__ import annotations

import contextlib
import dataclasses
import functools
import logging
import shutil
import tempfile
import time
from collections.abc import Collection, Sequence
from pathlib import Path
from typing import Any

import jax
import orbax.checkpoint as ocp
from orbax.checkpoint import checkpoint_managers

from larvseg_jax.console import console
from larvseg_jax.devices.processes import is_first_process, wait_for_all
from larvseg_jax.disk import refusal
from larvseg_jax.errors import UserError
from larvseg_jax.training.state import TrainState
from larvseg_jax.weights.failed_save import end_what_waits, keep_orbax_quiet
from larvseg_jax.weights.record import Record, check_same_data, check_same_vocabulary
from larvseg_jax.weights.saved_step import DamagedCheckpoint, read_record, read_state, steps_in, to_write

AGAIN_AFTER = 60.0
"""Seconds between two tries to write to a disk that has refused."""


class _Best(checkpoint_managers.PreservationPolicy):
    """Keeps the step with the largest score; of equal ones the newest.

    Orbax's own BestN knows the scores of this process only, so that it deletes the best one after a restart.
    """

    def __init__(self, scores: dict[int, float]) -> None:
        self._scores = scores

    def should_preserve(self, checkpoints: Sequence[Any], *, context: object) -> Sequence[bool]:
        scored = [(self._scores[c.step], c.step) for c in checkpoints if c.step in self._scores]
        return [bool(scored) and c.step == max(scored)[1] for c in checkpoints]


class Checkpoints:
    """The checkpoints of one run: the last few and the one with the best score. Use as a context manager.

    With read_only=True nothing in the folder is touched, so that a run that is still training can be read.
    """

    def __init__(self, workdir: Path, keep_last: int = 2, best: str = "mIoU", *, read_only: bool = False) -> None:
        """`keep_last`: how many; `best`: the name of the score, a larger one being better."""
        self._folder = (workdir / "checkpoints").absolute()
        self._keep_last, self._best, self._open = keep_last, best, False
        self._writing: int | None = None  # the step whose save is under way
        self._refused_at: float | None = None  # when the disk last did not take one, and why
        self._reason = ""
        if not read_only:
            try:
                self._folder.mkdir(parents=True, exist_ok=True)
            except OSError as error:
                raise UserError(f"cannot write {self._folder} ({error.strerror}): give another workdir") from error

    @functools.cached_property
    def _manager(self) -> ocp.CheckpointManager:
        """What writes; made at the first save, when nothing damaged is in its way any more."""
        self._scores = {}
        for step in self.steps():
            try:
                scores = self.record(step).scores
            except DamagedCheckpoint as error:
                logging.warning("%s; it is set aside", error)
                self._set_aside([step])
                continue
            if self._best in scores:
                self._scores[step] = scores[self._best]
        policies = checkpoint_managers
        keep = policies.AnyPreservationPolicy([policies.LatestN(self._keep_last), _Best(self._scores)])
        # What an interrupted save left behind is removed.
        options = ocp.CheckpointManagerOptions(
            preservation_policy=keep, cleanup_tmp_directories=True, enable_async_checkpointing=True
        )
        keep_orbax_quiet()
        manager = ocp.CheckpointManager(self._folder, options=options)
        self._open = True
        return manager

    def __enter__(self) -> Checkpoints:
        return self

    def __exit__(self, *_: object) -> None:
        self.settle()  # leaving without waiting would lose the save that is under way
        if self._open:
            self._manager.close()

    def steps(self) -> list[int]:
        """Steps of which there is a checkpoint, ascending."""
        return steps_in(self._folder)

    def choose(self, step: int | None) -> int:
        """The step asked for, the newest if it is None; UserError if there is no such checkpoint."""
        steps = self.steps()
        if not steps or step not in (None, *steps):
            run = self._folder.parent
            raise UserError(f"{run} has no checkpoint of step {step}: it has {steps or 'none at all'}")
        return steps[-1] if step is None else step

    def save(self, record: Record, state: TrainState, step: int, score: float | None) -> None:
        """Starts writing in the background; a step that is there already is left as it is.

        A disk that is full or read-only costs this checkpoint: it is said, those before stay, and `again` tells when to
        try anew. With several processes it is a UserError.
        """
        self.settle()
        try:
            if step in self._manager.all_steps():
                return
            if score is not None:
                self._scores[step] = score
            scores = {} if score is None else {self._best: score}
            self._manager.save(step, args=to_write(dataclasses.replace(record, step=step, scores=scores), state))
            self._writing = step
        except Exception as error:
            self._refused(step, error)

    def settle(self) -> bool:
        """Waits for the save under way; whether the last one is on disk. Says so if the disk did not take it."""
        if self._writing is not None:
            step, self._writing = self._writing, None
            try:
                self._manager.wait_until_finished()
            except Exception as error:
                self._refused(step, error)
            else:
                self._accepted(step)
        return self._refused_at is None

    def _accepted(self, step: int) -> None:
        if self._refused_at is not None:
            console.print(f"step {step} is saved: the disk takes checkpoints again")
            self._refused_at, self._reason = None, ""

    def again(self) -> bool:
        """Whether the disk has refused a save, and it is time to try anew. Costs nothing: for every step."""
        if self._writing is not None and jax.process_count() == 1 and not self._manager.is_saving_in_progress():
            self.settle()
        return self._refused_at is not None and time.monotonic() > self._refused_at + AGAIN_AFTER

    def _refused(self, step: int, error: Exception) -> None:
        reason = refusal(error)
        if reason is None:
            raise error
        what = f"the checkpoint of step {step} could not be written ({reason})"
        end_what_waits()
        if jax.process_count() > 1:
            raise UserError(f"{what}: make room; the same command goes on from the one before") from error
        if self._reason != reason:
            console.print(f"{what}: make room; the run goes on, checkpoints before it stay, and it is tried again")
        self._refused_at, self._reason = time.monotonic(), reason
        # Orbax's list of what is there is wrong now, and what it has begun takes up room.
        if self._open:
            with contextlib.suppress(Exception):
                self._manager.close()
        self.__dict__.pop("_manager", None)
        self._open = False
        for begun in self._folder.glob("*.orbax-checkpoint-tmp"):
            shutil.rmtree(begun, ignore_errors=True)

    def record(self, step: int) -> Record:
        """The record of a checkpoint; DamagedCheckpoint if it cannot be read or is not what was written."""
        return read_record(self._folder / str(step))

    def restore(self, step: int, template: TrainState) -> TrainState:
        """The state of a step, laid out like `template`; errors as `read_state`."""
        return read_state(self._folder / str(step), template)

    def restore_latest(
        self, template: TrainState, expected: Record, accept: Collection[str] = ()
    ) -> tuple[TrainState, Record] | None:
        """The newest undamaged state and its record, or None if there is no checkpoint at all.

        Newer, damaged ones are set aside. UserError if the newest readable one belongs to another vocabulary or model,
        or was trained on other batches and `accept` has no "data".
        """
        self.settle()
        problems, steps = [], self.steps()
        for step in reversed(steps):
            try:
                record = self.record(step)
                check_same_vocabulary(record, expected.classes, self._folder)
                check_same_data(record, expected, self._folder, accept)
                state = self.restore(step, template)
                self._set_aside([s for s in steps if s > step])
                return state, record
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
