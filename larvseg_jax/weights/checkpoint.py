"""The checkpoints of a run: which are kept, which one a run goes on from. Orbax writes them.

A checkpoint holds the train state, a record (config, class names, shapes and dtypes, data settings, scores, versions,
commit) and exact digests of both (weights/saved_step.py).
"""

from __future__ import annotations

import dataclasses
import functools
import logging
import tempfile
from collections.abc import Collection, Sequence
from pathlib import Path
from typing import Any

import orbax.checkpoint as ocp
from orbax.checkpoint import checkpoint_managers

from larvseg_jax.devices.processes import is_first_process, wait_for_all
from larvseg_jax.errors import UserError
from larvseg_jax.training.state import TrainState
from larvseg_jax.weights.record import Record, check_same_data, check_same_vocabulary
from larvseg_jax.weights.saved_step import DamagedCheckpoint, read_record, read_state, steps_in, to_write


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
        self._open = True
        return ocp.CheckpointManager(self._folder, options=options)

    def __enter__(self) -> Checkpoints:
        return self

    def __exit__(self, *_: object) -> None:
        if self._open:  # leaving without waiting would lose the save that is under way
            self._manager.wait_until_finished()
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
        """Starts writing in the background; a step that is there already is left as it is."""
        if step in self._manager.all_steps():
            return
        if score is not None:
            self._scores[step] = score
        scores = {} if score is None else {self._best: score}
        self._manager.save(step, args=to_write(dataclasses.replace(record, step=step, scores=scores), state))

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
        if self._open:
            self._manager.wait_until_finished()
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
