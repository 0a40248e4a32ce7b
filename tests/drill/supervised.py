"""A run in a process of its own, started, watched and ended from outside."""

from __future__ import annotations

import contextlib
import dataclasses
import re
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path

from larvseg_jax.report.metric_log import read_history
from larvseg_jax.training import history
from tests.child import environment

REPOSITORY = Path(__file__).resolve().parent.parent.parent
PATIENCE = 300.0  # seconds; whoever takes longer hangs


class Failure(Exception):
    """What a run did that it must not do."""


@dataclasses.dataclass
class Life:
    """One process of a run, from start to end."""

    process: subprocess.Popen[bytes]
    output: Path

    def text(self) -> str:
        """What it has printed."""
        return self.output.read_text(errors="replace")

    def steps(self) -> list[int]:
        """The steps that it has told."""
        return [int(step) for step in re.findall(r"^step (\d+)/", self.text(), re.M)]

    def end(self, how: int | None = None, patience: float = PATIENCE) -> int:
        """Sends a signal, if one is given, and waits for the end; the exit code. Failure if it hangs or tracebacks."""
        if how is not None:
            self.process.send_signal(how)
        try:
            code = self.process.wait(patience)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait()
            raise Failure(f"no end within {patience:.0f} s: {self.text()[-300:]}") from None
        if "Traceback (most recent call last)" in self.text():
            raise Failure(f"a traceback: {self.text()[-600:]}")
        return code


class Run:
    """A training that is to be disturbed: its folder, its command, and what it says of itself."""

    def __init__(self, folder: Path, flags: list[str], data_files: Sequence[Path], workdir: str = "run") -> None:
        """`folder`: of the drill; `flags`: of train.py, without the workdir; `data_files`: that may be harmed."""
        self.folder, self.workdir, self._flags, self.data_files = folder, folder / workdir, flags, data_files
        self.checkpoints = self.workdir / "checkpoints"
        self._lives = 0

    def start(self, more: Mapping[str, str] | None = None, before: Sequence[str] = (), devices: int = 1) -> Life:
        """Starts a process; `more` is added to its environment, the command stands behind the words of `before`."""
        self._lives += 1
        output = self.folder / f"{self.workdir.name}_{self._lives:03d}.txt"
        own = environment(devices, JAX_COMPILATION_CACHE_DIR=str(self.folder / "xla"), **(more or {}))
        command = [*before, sys.executable, "train.py", *self._flags, f"--config.workdir={self.workdir}"]
        with output.open("wb") as file:
            process = subprocess.Popen(command, cwd=REPOSITORY, env=own, stdout=file, stderr=subprocess.STDOUT)
        return Life(process, output)

    def step(self) -> int:
        """The last step that was logged."""
        return max((line["step"] for line in read_history(self.workdir) if line["kind"] == "train"), default=0)

    def starts(self) -> list[int]:
        """The steps at which its lives have begun, first to last."""
        return [event["step"] for event in history.read(self.workdir) if event["event"] in ("started", "resumed")]

    def log_time(self) -> float:
        """When the log was last written; 0.0 if there is none."""
        log = self.workdir / "metrics.jsonl"
        return log.stat().st_mtime if log.exists() else 0.0

    def until(self, life: Life, ready: Callable[[], bool], pause: float = 0.02) -> bool:
        """Waits until it is so; False if the life ends before. Failure if it takes too long."""
        deadline = time.monotonic() + PATIENCE
        while not ready():
            if life.process.poll() is not None:
                return ready()
            if time.monotonic() > deadline:
                life.process.kill()
                raise Failure(f"it waits for ever: {life.text()[-300:]}")
            time.sleep(pause)
        return True

    def until_steps(self, life: Life, steps: int) -> bool:
        """Waits until a life has logged so many steps; False if it ends before that."""
        return self.until(life, lambda: len(life.steps()) >= steps)

    def until_saving(self, life: Life) -> bool:
        """Waits until a checkpoint is being written."""
        left = set(self._begun_saves())  # by lives before
        return self.until(life, lambda: bool(set(self._begun_saves()) - left), pause=0.001)

    def _begun_saves(self) -> Iterator[tuple[str, float]]:
        for path in self.checkpoints.glob("*.orbax-checkpoint-tmp"):
            with contextlib.suppress(FileNotFoundError):
                yield path.name, path.stat().st_ctime

    def newest(self) -> Path | None:
        """The folder of the newest checkpoint."""
        steps = [path for path in self.checkpoints.glob("*") if path.name.isdecimal()]
        return max(steps, key=lambda path: int(path.name), default=None)


def killed(life: Life) -> None:
    """Ends a life by kill -9."""
    if life.end(signal.SIGKILL) not in (-signal.SIGKILL, 0):
        raise Failure(f"exit code {life.process.returncode} after kill -9")
