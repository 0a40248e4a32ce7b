"""What the terminal shows: named stages with their seconds, and progress bars with the time left.

Where stdout is not a terminal (a log file, CI) a plain line appears every so often instead of a bar.
"""

from __future__ import annotations

import contextlib
import time
from collections.abc import Iterable, Iterator, Mapping
from types import TracebackType
from typing import TypeVar

from rich.console import Console
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    TaskID,
    TextColumn,
    TimeElapsedColumn,
    TimeRemainingColumn,
)

T = TypeVar("T")

_LINE_SECONDS = 20.0  # between two lines of a log

console = Console(highlight=False, soft_wrap=True)
"""Prints above a running progress bar; use it instead of print()."""


@contextlib.contextmanager
def stage(name: str, timings: dict[str, float] | None = None) -> Iterator[None]:
    """Prints the name of a part of the run (data, init, compile, ...), and its seconds when it ends.

    The seconds are also added to timings[name]. On an error the line says so; the error goes on.
    """
    start = time.monotonic()
    console.print(f"[bold]{name}[/bold] ...")
    try:
        yield
    except BaseException:
        console.print(f"[bold red]{name}[/bold red] stopped after {time.monotonic() - start:.1f} s")
        raise
    seconds = time.monotonic() - start
    console.print(f"[bold]{name}[/bold] {seconds:.1f} s")
    if timings is not None:
        timings[name] = timings.get(name, 0.0) + seconds


class TrainProgress:
    """The bar of a training run: steps, losses, images per second, time left.

        with TrainProgress(total_steps, start_step) as progress:
            progress.update(step, metrics)  # metrics may be empty between two logged steps

    Time left is reckoned from this run's own steps, not from those before a restart.
    """

    def __init__(self, total: int, start: int = 0) -> None:
        self._total = total
        self._start = start
        self._begun = self._last_line = time.monotonic()
        self._shown = ""
        self._bar: Progress | None = _bar("train") if console.is_terminal else None
        self._task: TaskID | None = None
        if self._bar is not None:
            self._task = self._bar.add_task("train", total=total, completed=start, shown="")

    def __enter__(self) -> TrainProgress:
        if self._bar is not None:
            self._bar.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._bar is not None:
            self._bar.stop()

    def update(self, step: int, metrics: Mapping[str, float]) -> None:
        """Shows that `step` steps are done, with the latest metrics known (empty: those of before)."""
        if metrics:
            self._shown = _train_text(metrics)
        if self._bar is not None and self._task is not None:
            self._bar.update(self._task, completed=step, shown=self._shown)
            return
        now = time.monotonic()
        if now - self._last_line >= _LINE_SECONDS or step >= self._total:
            self._last_line = now
            done = max(step - self._start, 1)
            left = (now - self._begun) / done * (self._total - step)
            console.print(f"step {step}/{self._total}  {self._shown}  {_clock(left)} left", markup=False)


def track(items: Iterable[T], total: int, name: str) -> Iterator[T]:
    """Yields the items behind a progress bar; one line at the end where stdout is not a terminal."""
    begun = last_line = time.monotonic()
    if console.is_terminal:
        with _bar(name) as bar:
            task = bar.add_task(name, total=total, shown="")
            for item in items:
                yield item
                bar.advance(task)
        return
    for done, item in enumerate(items, start=1):
        yield item
        now = time.monotonic()
        if done == total or now - last_line >= _LINE_SECONDS:
            last_line = now
            left = (now - begun) / done * (total - done)
            console.print(f"{name} {done}/{total}  {_clock(left)} left", markup=False)


def _bar(name: str) -> Progress:
    return Progress(
        TextColumn(f"[bold]{name}"),
        BarColumn(),
        MofNCompleteColumn(),
        TimeElapsedColumn(),
        TextColumn("<"),
        TimeRemainingColumn(),
        TextColumn("{task.fields[shown]}", markup=False),
        console=console,
        transient=name != "train",
    )


def _train_text(metrics: Mapping[str, float]) -> str:
    """Losses first, then speed: "loss 2.31  coco/L_seg 1.90  41.5 images/s"."""
    parts = [f"loss {metrics['loss']:.3f}"] if "loss" in metrics else []
    parts += [f"{name} {value:.3f}" for name, value in metrics.items() if "/L_" in name]
    if "images_per_second" in metrics:
        parts.append(f"{metrics['images_per_second']:.1f} images/s")
    return "  ".join(parts)


def _clock(seconds: float) -> str:
    hours, rest = divmod(round(seconds), 3600)
    return f"{hours}:{rest // 60:02d}:{rest % 60:02d}"
