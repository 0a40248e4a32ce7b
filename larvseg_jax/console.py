"""What the terminal shows: named stages with their seconds, progress bars with the time left, sizes and lists.

Nothing that is printed is markup: names of files and classes come from outside and may have any character.

Every logged step of a training is a line. Where stdout is not a terminal (a log file, CI) there is no bar; other
work than training then shows a plain line every so often.
"""

from __future__ import annotations

import contextlib
import errno
import re
import sys
import time
from collections.abc import Iterable, Iterator, Mapping
from types import TracebackType
from typing import Any, TypeVar

from rich import filesize
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
from rich.text import Text

T = TypeVar("T")

_LINE_SECONDS = 20.0  # between two lines of a log

GIB = 2**30
"""Bytes."""


class _Output(Console):
    """A console that a full disk does not stop, where stdout is a file: stdout keeps the text in its buffer, if any."""

    def print(self, *objects: Any, **options: Any) -> None:
        try:
            super().print(*objects, **options)
        except OSError as error:
            if error.errno not in (errno.ENOSPC, errno.EDQUOT, errno.EFBIG):
                raise
            del self._buffer[:]  # stdout has it already


console = _Output(highlight=False, soft_wrap=True, markup=False, emoji=False)
"""Prints above a running progress bar; use it instead of print(). Takes no markup: styles are given by `Text`."""

_UNPRINTABLE = re.compile("[\x00-\x1f\x7f-\x9f\u2028\u2029\ud800-\udfff]")


def print_any_text() -> None:
    """From now on stdout and stderr show a character that their encoding lacks by its number instead of failing."""
    for stream in (sys.stdout, sys.stderr):
        if hasattr(stream, "reconfigure"):
            stream.reconfigure(errors="backslashreplace")


def printable(text: object) -> str:
    """A name from outside in one line: line breaks, control characters, bytes that are not UTF-8 as escapes."""
    return _UNPRINTABLE.sub(_escaped, str(text))


def _escaped(match: re.Match[str]) -> str:
    code = ord(match[0])
    if 0xDC80 <= code <= 0xDCFF:  # how Python keeps such a byte
        return f"\\x{code - 0xDC00:02x}"
    return match[0].encode("unicode_escape").decode()


@contextlib.contextmanager
def stage(name: str, timings: dict[str, float] | None = None) -> Iterator[None]:
    """Prints the name of a part of the run (data, init, compile, ...), and its seconds when it ends.

    The seconds are also added to timings[name]. On an error the line says so; the error goes on.
    """
    start = time.monotonic()
    console.print(Text(name, "bold").append(" ...", "not bold"))
    try:
        yield
    except BaseException:
        console.print(
            Text(name, "bold red").append(f" stopped after {time.monotonic() - start:.1f} s", "default not bold")
        )
        raise
    seconds = time.monotonic() - start
    console.print(Text(name, "bold").append(f" {seconds:.1f} s", "not bold"))
    if timings is not None:
        timings[name] = timings.get(name, 0.0) + seconds


class TrainProgress:
    """The bar of a training run with steps and time left; above it the losses and the speed of the logged steps.

        with TrainProgress(total_steps, start_step) as progress:
            progress.update(step, metrics)  # metrics are empty between two logged steps

    Time left comes from this run's own steps, not from those before a restart, and not from the first one, which
    waits for the first pictures.
    """

    def __init__(self, total: int, start: int = 0) -> None:
        self._total = total
        self._first: tuple[int, float] | None = None  # the first step that was seen done, and when
        self._begun = time.monotonic()
        self._bar: Progress | None = _bar("train") if console.is_terminal else None
        self._task: TaskID | None = None
        if self._bar is not None:
            self._task = self._bar.add_task("train", total=total, completed=start)

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
        """Shows that `step` steps are done; a line with their metrics, unless these are empty: not logged."""
        now = time.monotonic()
        if self._first is None:
            self._first = step, now
            if not metrics:
                console.print(f"step {step}/{self._total}  done after {now - self._begun:.1f} s")
        if self._bar is not None and self._task is not None:
            self._bar.update(self._task, completed=step)
        if metrics:
            line = f"step {step}/{self._total}  {_train_text(metrics)}"
            first, then = self._first
            if self._bar is None and step > first:  # the bar would show it
                line += f"  {_clock((now - then) / (step - first) * (self._total - step))} left"
            console.print(line)


def track(items: Iterable[T], total: int, name: str) -> Iterator[T]:
    """Yields the items behind a progress bar; one line at the end where stdout is not a terminal."""
    begun = last_line = time.monotonic()
    if console.is_terminal:
        with _bar(name) as bar:
            task = bar.add_task(name, total=total)
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
            console.print(f"{name} {done}/{total}  {_clock(left)} left")


def _bar(name: str) -> Progress:
    return Progress(
        TextColumn("{task.description}", style="bold", markup=False),
        BarColumn(),
        MofNCompleteColumn(),
        TimeElapsedColumn(),
        TextColumn("<"),
        TimeRemainingColumn(),
        console=console,
        transient=name != "train",
    )


def _train_text(metrics: Mapping[str, float]) -> str:
    """Losses first, then speed: "loss 2.310  coco/L_seg 1.900  images/s 41.5  MFU 43.2%  waiting for data 0.1%".

    While something is not ready, losses of 0 are none yet: "bank 37% ready: no tags/L_aux yet".
    """
    parts = [f"loss {metrics['loss']:.3f}"] if "loss" in metrics else []
    losses = {name: value for name, value in metrics.items() if "/L_" in name}
    waiting = [
        f"{name.removeprefix('ready/')} {int(100 * value)}% ready"
        for name, value in metrics.items()
        if name.startswith("ready/") and value < 1
    ]
    late = [name for name, value in losses.items() if value == 0] if waiting else []
    parts += [f"{name} {value:.3f}" for name, value in losses.items() if name not in late]
    if waiting:
        parts.append(", ".join(waiting) + (f": no {', '.join(late)} yet" if late else ""))
    parts += [f"{name} {value}" for name, value in speed_facts(metrics).items()]
    return "  ".join(parts)


def speed_facts(metrics: Mapping[str, float]) -> dict[str, str]:
    """What is known of a run's speed, for people: {"images/s": "41.5", "MFU": "43.2%", ...}."""
    facts = {}
    if "images_per_second" in metrics:
        facts["images/s"] = f"{metrics['images_per_second']:.1f}"
    if "mfu" in metrics:
        facts["MFU"] = f"{metrics['mfu']:.1%}"
    if "data_wait" in metrics:
        facts["waiting for data"] = f"{metrics['data_wait']:.1%}"
    for where in ("device", "host"):
        if f"{where}_memory_gib" in metrics:
            facts[f"{where} memory"] = in_gib(metrics[f"{where}_memory_gib"] * GIB)
    return facts


def in_bytes(size: float | int) -> str:
    """A size in powers of 1000, "1.5 GB": files and arrays."""
    return filesize.decimal(round(size))


def in_gib(size: float | int) -> str:
    """A size in GiB, "1.50 GiB": the memory of a device or a process, which is sold and reported so."""
    return f"{size / GIB:.2f} GiB"


def first_few(texts: Iterable[str], most: int = 8, separator: str = ", ") -> str:
    """The first few texts and how many more there are, "a, b and 3 more"; "none" if there are none."""
    texts = list(texts)
    more = f"{separator.strip(', ')} and {len(texts) - most:,} more" if len(texts) > most else ""
    return f"{separator.join(texts[:most])}{more}" if texts else "none"


def _clock(seconds: float) -> str:
    hours, rest = divmod(round(seconds), 3600)
    return f"{hours}:{rest // 60:02d}:{rest % 60:02d}"
