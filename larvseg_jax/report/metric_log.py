"""Metrics of a run: metrics.jsonl (one JSON object per line) and TensorBoard scalars.

TensorBoard files are written by tensorboardX, which needs no TensorFlow.
"""

from __future__ import annotations

import json
import math
import os
import pathlib
import statistics
from collections.abc import Iterable, Mapping
from types import TracebackType
from typing import Any

import tensorboardX

from larvseg_jax.devices.processes import is_first_process
from larvseg_jax.errors import UserError

FILE_NAME = "metrics.jsonl"

_SPEED = ("images_per_second", "seconds_per_step", "mfu", "data_wait")


class MetricLog:
    """Appends metrics to a run directory, one line per step and kind whatever was killed and restarted.

    A run that resumes at step s does its steps > s again, so lines of such steps are dropped on opening
    (TensorBoard is told to hide them); a run that starts from the beginning (s = 0) drops all.
    NaN and infinities become null: JSON has no word for them. Of several processes only the first one writes.
    """

    def __init__(self, workdir: str | os.PathLike[str], resume_step: int = 0) -> None:
        self._writes = is_first_process()
        if not self._writes:
            return
        folder = pathlib.Path(workdir)
        folder.mkdir(parents=True, exist_ok=True)
        path = folder / FILE_NAME
        kept = [line for line in read_history(folder) if line["step"] <= resume_step] if resume_step else []
        # Written anew and renamed: a kill in this very moment leaves the old file or the new one, whole.
        fresh = path.with_suffix(".new")
        fresh.write_text("".join(_line(values) for values in kept))
        fresh.replace(path)
        self._file = path.open("a", encoding="utf-8")
        first_step = resume_step + 1 if resume_step else 0
        self._board = tensorboardX.SummaryWriter(str(folder / "tensorboard"), purge_step=first_step)

    def write(self, step: int, kind: str, values: Mapping[str, float], name: str = "") -> None:
        """Adds one line {"step", "kind", **values}; `kind` is "train" or "eval", the latter with a "name"."""
        if not self._writes:
            return
        head = {"step": step, "kind": kind, **({"name": name} if name else {})}
        self._file.write(_line({**head, **{k: float(v) for k, v in values.items()}}))
        self._file.flush()
        for metric, value in values.items():
            self._board.add_scalar("/".join(filter(None, (kind, name, metric))), float(value), step)

    def close(self) -> None:
        """Writes out what is buffered."""
        if self._writes:
            self._file.close()
            self._board.close()

    def __enter__(self) -> MetricLog:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()


def read_history(workdir: str | os.PathLike[str]) -> list[dict[str, Any]]:
    """The lines of metrics.jsonl, null read as NaN; [] if there is no such file.

    A last line cut off by a kill is left out; any other line that is not JSON is a UserError.
    """
    path = pathlib.Path(workdir) / FILE_NAME
    lines = path.read_text(encoding="utf-8").splitlines() if path.exists() else []
    history = []
    for number, text in enumerate(lines, start=1):
        try:
            values = json.loads(text)
        except json.JSONDecodeError:
            if number == len(lines):
                break
            raise UserError(f"{path}, line {number} is not JSON: repair or delete that line") from None
        history.append({name: math.nan if value is None else value for name, value in values.items()})
    return history


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
