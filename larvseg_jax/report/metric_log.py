"""Metrics of a run: metrics.jsonl, one JSON object per line, and the same for TensorBoard (tensorboard.py)."""

from __future__ import annotations

import json
import math
import os
import pathlib
import statistics
from collections.abc import Iterable, Mapping
from types import TracebackType
from typing import Any

from larvseg_jax.console import console
from larvseg_jax.devices.processes import is_first_process
from larvseg_jax.disk import write_text
from larvseg_jax.errors import UserError
from larvseg_jax.report.tensorboard import Board

FILE_NAME = "metrics.jsonl"

_LARGEST = 1e39  # of any number: all of float32, and plots can still be drawn

_SPEED = ("images_per_second", "seconds_per_step", "mfu", "data_wait")


class MetricLog:
    """Appends metrics to a run directory, one line per step and kind whatever was killed and restarted.

    A run that resumes at step s does its steps > s again, so lines of such steps are dropped on opening
    (TensorBoard is told to hide them); a run that starts from the beginning (s = 0) drops all.
    NaN and infinities become null: JSON has no word for them. Of several processes only the first one writes.
    While the disk takes nothing, which is said once, lines are kept and written later; TensorBoard lacks them.
    """

    def __init__(self, workdir: str | os.PathLike[str], resume_step: int = 0) -> None:
        self._writes = is_first_process()
        if not self._writes:
            return
        folder = pathlib.Path(workdir)
        self._path = folder / FILE_NAME
        kept = [line for line in read_history(folder) if line["step"] <= resume_step] if resume_step else []
        # Written anew and renamed: a kill in this very moment leaves the old file or the new one, whole.
        write_text(self._path, "".join(_line(values) for values in kept))
        self._end = self._path.stat().st_size  # of what is known to be whole lines
        self._unwritten = b""
        self._board = Board(folder / "tensorboard", resume_step + 1 if resume_step else 0)

    def write(self, step: int, kind: str, values: Mapping[str, float], name: str = "") -> None:
        """Adds one line {"step", "kind", **values}; `kind` is "train", "data" or "eval", the last with a "name"."""
        if not self._writes:
            return
        head = {"step": step, "kind": kind, **({"name": name} if name else {})}
        self._append(_line({**head, **{k: float(v) for k, v in values.items()}}).encode())
        tags = {"/".join(filter(None, (kind, name, metric))): float(value) for metric, value in values.items()}
        self._board.write(step, tags)

    def _append(self, line: bytes) -> None:
        failing, self._unwritten = bool(self._unwritten), self._unwritten + line
        try:
            with self._path.open("r+b") as file:
                file.truncate(self._end)  # half a line may be left of a time when there was no room
                file.seek(self._end)
                file.write(self._unwritten)
        except OSError as error:
            if not failing:
                console.print(f"{self._path} cannot be written ({error.strerror}): its lines wait until it can")
            return
        self._end, self._unwritten = self._end + len(self._unwritten), b""

    def close(self) -> None:
        """Writes out what is buffered."""
        if not self._writes:
            return
        if self._unwritten:
            self._append(b"")
        self._board.close()

    def __enter__(self) -> MetricLog:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()


def read_history(workdir: str | os.PathLike[str]) -> list[dict[str, Any]]:
    """The lines of metrics.jsonl, null read as NaN; [] if there is no such file.

    A line that is broken costs that line only: how many there are, and what the first is, is printed once. Nothing is
    said of a last line without its end, which a kill left behind.

    Raises:
      UserError: the file cannot be read at all.
    """
    path = pathlib.Path(workdir) / FILE_NAME
    history, broken = [], []
    try:
        with path.open("rb") as file:
            for number, text in enumerate(file, start=1):
                try:
                    history.append(_values(text))
                except (ValueError, RecursionError) as error:
                    if text.endswith(b"\n"):
                        broken.append(f"line {number} ({' '.join(str(error).split())[:100]})")
    except FileNotFoundError:
        return []
    except OSError as error:
        raise UserError(f"{path} cannot be read ({error.strerror}): mend or remove it") from error
    if broken:
        count = f"{len(broken)} lines are" if len(broken) > 1 else "1 line is"
        console.print(
            f"{path}: {count} no metrics and left out, the first {broken[0]}: repair or delete it",
        )
    return history


def _values(text: bytes) -> dict[str, Any]:
    """What one line says; ValueError if it is none that `MetricLog.write` could have written."""
    values = json.loads(text.decode("utf-8-sig"))
    if not isinstance(values, dict):
        raise ValueError(f"a {type(values).__name__} and no object")
    step = values.get("step")
    if type(step) is not int or not 0 <= step < 2**53:
        raise ValueError(f"step is {str(step)[:40]}")
    line: dict[str, Any] = {}
    for name, value in values.items():
        if value is None:
            value = math.nan
        kind = str if name in ("kind", "name") else (int, float)
        if not name.isprintable() or isinstance(value, bool) or not isinstance(value, kind):
            raise ValueError(f"{name[:40]!r} is {str(value)[:40]}")
        if isinstance(value, str) and not value.isprintable():
            raise ValueError(f"{name} is {value[:40]!r}")
        if isinstance(value, int | float) and abs(value) > _LARGEST:
            raise ValueError(f"{name[:40]!r} is {str(value)[:40]}")
        line[name] = value
    if not isinstance(line.get("kind"), str):
        raise ValueError("it has no kind")
    return line


def typical_speed(history: Iterable[Mapping[str, Any]]) -> dict[str, float]:
    """What the training lines of a history say of the speed: the median of each rate and share, the most memory."""
    logged: dict[str, list[float]] = {}
    for line in history:
        for name, value in line.items():
            if line["kind"] == "train" and (name in _SPEED or name.endswith("_memory_gib")):
                logged.setdefault(name, []).append(value)
    return {n: max(v) if n.endswith("_memory_gib") else statistics.median(v) for n, v in logged.items()}


def _line(values: Mapping[str, Any]) -> str:
    numbers = {k: None if isinstance(v, float) and not math.isfinite(v) else v for k, v in values.items()}
    return json.dumps(numbers, allow_nan=False) + "\n"
