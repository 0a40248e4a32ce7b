"""Runs the trainings of a grid, each in a process of its own: some at once, resumed, stopped and waited for."""

from __future__ import annotations

import contextlib
import dataclasses
import math
import os
import signal
import subprocess
import sys
import threading
import time
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

from larvseg_jax.console import console, printable, track
from larvseg_jax.errors import Stopped
from larvseg_jax.grid.plan import Job
from larvseg_jax.grid.results import read_result, steps_taken
from larvseg_jax.training.lock import user_of
from larvseg_jax.weights.places import steps_named

_LOOKED_EVERY = 0.2  # seconds between two looks at the processes
_READ_EVERY = 5.0  # seconds between two looks at what a process has logged
_MEMORY = ("XLA_CLIENT_MEM_FRACTION", "XLA_PYTHON_CLIENT_MEM_FRACTION")  # its older name last
_SHOWN = ("mIoU", "mIoU_base", "mIoU_novel")  # when a run is done
_GPU_SHARE = 0.9  # of a GPU's memory, for all processes together


def train_command(job: Job) -> list[str]:
    """The command line of a training."""
    script = Path(__file__).parents[2] / "train.py"
    return [sys.executable, os.path.relpath(script), *job.flags]


@dataclasses.dataclass
class _Child:
    """A process, the steps that it had begun with, and those that are known to be done."""

    job: Job
    process: subprocess.Popen[bytes]
    start: int
    done: int = 0
    read: float = dataclasses.field(default_factory=time.monotonic)


class Runner:
    """The trainings of a grid that are not finished.

    Attributes:
      failed: those that ended with an error, and its line.
      in_use: those that another process trains, and which; they are left to it.
    """

    def __init__(self, jobs: Sequence[Job], at_once: int, command: Callable[[Job], list[str]] = train_command) -> None:
        """`at_once`: most processes at a time; `command`: what trains a job."""
        self.failed: list[tuple[Job, str]] = []
        self.in_use: list[tuple[Job, str]] = []
        self._at_once, self._command = at_once, command
        self._waiting = deque(job for job in jobs if read_result(job) is None)
        self._set_aside: list[Job] = []
        self._running: list[_Child] = []
        self._all, self._done = len(jobs), len(jobs) - len(self._waiting)

    def run(self) -> None:
        """Runs all; returns when none is left. Raises Stopped after SIGTERM or Ctrl-C, all processes ended."""
        total = sum(job.total_steps - _saved(job) for job in self._waiting)
        console.print(f"{self._done} of {self._all} runs are finished, {total:,} steps are to be taken")
        with _stop_asked() as asked:
            try:
                for _ in track(self._steps(asked), total, "steps of all runs"):
                    pass
            finally:
                self._stop()
        if asked:
            raise Stopped("stopped: the same command goes on", 128 + asked[0])

    def _steps(self, asked: Sequence[int]) -> Iterator[int]:
        """Yields once for each step that a process has taken, and for those that will not be taken any more."""
        while not asked and (self._waiting or self._running or self._set_aside):
            while self._waiting and len(self._running) < self._at_once:
                yield from self._begin(self._waiting.popleft())
            if not self._running:
                yield from self._look_again()
            time.sleep(_LOOKED_EVERY)
            for child in list(self._running):
                yield from self._watch(child)

    def _begin(self, job: Job) -> Iterator[int]:
        """Starts a process, unless another one trains the same or has done it."""
        start = _saved(job)
        if read_result(job) is not None:  # by a grid beside this one
            self._done += 1
            yield from range(job.total_steps - start)
        elif user_of(job.folder):
            self._set_aside.append(job)
        else:
            console.print(f"{job}: {f'goes on from step {start}' if start else 'starts'}")
            log = _log(job)
            log.parent.mkdir(parents=True, exist_ok=True)
            with log.open("ab") as file:
                process = subprocess.Popen(
                    self._command(job),
                    env=_environment(self._at_once),
                    stdin=subprocess.DEVNULL,
                    stdout=file,
                    stderr=subprocess.STDOUT,
                    start_new_session=True,  # a Ctrl-C is for the grid, which passes it on once
                )
            self._running.append(_Child(job, process, start))

    def _look_again(self) -> Iterator[int]:
        """Once nothing else is left: what another process trained is finished, still trained, or free now."""
        jobs, self._set_aside = self._set_aside, []
        for job in jobs:
            user = user_of(job.folder)
            if user is None:
                self._waiting.append(job)
                continue
            self.in_use.append((job, user))
            console.print(f"{job}: is trained by another run ({user}) and left to it")
            yield from range(job.total_steps - _saved(job))

    def _watch(self, child: _Child) -> Iterator[int]:
        """What a process has done since the last look."""
        code = child.process.poll()
        now = time.monotonic()
        if code is None:
            if now - child.read < _READ_EVERY:
                return
            child.read = now
            done = max(min(steps_taken(child.job), child.job.total_steps) - child.start, child.done)
        else:
            self._running.remove(child)
            self._ended(child.job, code)
            done = child.job.total_steps - child.start
        yield from range(done - child.done)
        child.done = done

    def _ended(self, job: Job, code: int) -> None:
        result = read_result(job) if code == 0 else None
        if result is not None:
            self._done += 1
            shown = {name: result.scores.get(name, math.nan) for name in _SHOWN}
            scores = "  ".join(f"{name} {100 * value:.2f}" for name, value in shown.items() if not math.isnan(value))
            console.print(f"{job}: done  {scores}  ({self._done} of {self._all} runs are finished)")
        elif user_of(job.folder):  # which was a moment faster
            self._set_aside.append(job)
        else:
            line = _last_line(_log(job)) if code else "it ended without its last scores"
            self.failed.append((job, line))
            console.print(f"{job}: failed with exit code {code}: {line}")

    def _stop(self) -> None:
        """Asks all processes to save and to end, and waits for that; a second Ctrl-C kills them."""
        if not self._running:
            return
        for child in self._running:
            child.process.terminate()
        try:
            with contextlib.suppress(OSError):  # stdout may be what is gone
                console.print(
                    f"stopping {len(self._running)} runs, which save first; a second Ctrl-C ends them at once"
                )
            for child in self._running:
                child.process.wait()
        except KeyboardInterrupt:
            for child in self._running:
                child.process.kill()
                child.process.wait()
            raise


def _saved(job: Job) -> int:
    """The step from which a run goes on."""
    return min(max(steps_named(job.folder), default=0), job.total_steps)


def _log(job: Job) -> Path:
    """What a run prints: beside its folder, which is made by the run itself."""
    return job.folder.parent / "logs" / f"{job.folder.name}.txt"


def _last_line(log: Path) -> str:
    lines = log.read_text(errors="replace").strip().splitlines()
    return printable(f"{lines[-1] if lines else 'nothing was printed'} (all of it: {log})")


def _environment(at_once: int) -> dict[str, str]:
    """That of a process: so many may share a GPU, of which JAX takes three quarters for one, unless the user says."""
    environment = dict(os.environ, PYTHONUNBUFFERED="1")
    if not any(name in environment for name in _MEMORY):
        environment[_MEMORY[0]] = f"{_GPU_SHARE / at_once:.3f}"
    return environment


@contextlib.contextmanager
def _stop_asked() -> Iterator[list[int]]:
    """The signals SIGINT and SIGTERM that have come, in a list. A second Ctrl-C raises KeyboardInterrupt."""
    asked: list[int] = []

    def note(number: int, _frame: object) -> None:
        asked.append(number)
        if number == signal.SIGINT:
            signal.signal(signal.SIGINT, signal.default_int_handler)

    in_main = threading.current_thread() is threading.main_thread()
    caught = (signal.SIGINT, signal.SIGTERM) if in_main else ()
    before = {number: signal.signal(number, note) for number in caught}
    try:
        yield asked
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
