"""The saves of a training, and what becomes of one that the disk does not take."""

from __future__ import annotations

import time
from collections.abc import Callable

from larvseg_jax.console import console
from larvseg_jax.training.state import TrainState
from larvseg_jax.weights.checkpoint import Checkpoints
from larvseg_jax.weights.record import Record


class Saves:
    """Writes the states of a run, one after the other. Called with a state, its step and score it starts a save."""

    def __init__(self, checkpoints: Checkpoints, record: Record, give_up: Callable[[], bool]) -> None:
        """`give_up`: whether the run was asked to stop, so that nobody waits for a disk any more."""
        self._checkpoints, self._record, self._give_up = checkpoints, record, give_up

    def __call__(self, state: TrainState, step: int, score: float | None) -> None:
        """Starts writing; a disk that refuses costs this checkpoint only."""
        self._checkpoints.save(self._record, state, step, score)

    def again(self) -> bool:
        """Whether a save has failed and it is time to try anew."""
        return self._checkpoints.again()

    def written(self) -> bool:
        """Whether the last save is on disk; waits for it."""
        return self._checkpoints.settle()

    def insist(self, state: TrainState, step: int, score: float | None) -> None:
        """Saves, and returns once that is written, however long it takes until there is room; or at `give_up`."""
        self(state, step, score)
        if self.written() or self._give_up():
            return
        console.print("the run is kept waiting until its last step is written; Ctrl-C gives that up")
        while not self.written() and not self._give_up():
            time.sleep(0.2)
            if self.again():
                self(state, step, score)
