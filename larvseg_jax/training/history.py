"""What happened to a run besides its steps: starts, restarts, options that changed, data that failed.

history.jsonl in the run's folder: one JSON object per line, only ever appended to.
"""

from __future__ import annotations

import dataclasses
import json
import time
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from larvseg_jax.console import console
from larvseg_jax.devices.processes import is_first_process

FILE_NAME = "history.jsonl"
WHERE = ("commit", "devices", "processor")
"""Facts that "started" and "resumed" have besides `command`: of which code and on what the steps from there on were."""

NOT_RECORDED = "not recorded"


@dataclasses.dataclass(frozen=True)
class Origin:
    """Of all starts of a run, each once: a run that was resumed may have several; NOT_RECORDED if nothing is said."""

    commits: tuple[str, ...]
    machines: tuple[str, ...]
    dates: tuple[str, ...]
    commands: tuple[str, ...]


def note(workdir: Path, event: str, step: int, details: Sequence[str] = (), **facts: str) -> None:
    """Appends an event, with other facts of it by name; of several processes the first one writes.

    A disk that is full costs the line only.
    """
    if not is_first_process():
        return
    when = time.strftime("%Y-%m-%dT%H:%M:%S%z")
    line = {"time": when, "event": event, "step": step, "details": list(details), **facts}
    try:
        with (workdir / FILE_NAME).open("a", encoding="utf-8") as file:
            file.write(json.dumps(line) + "\n")
    except OSError as error:
        console.print(f"{workdir / FILE_NAME} could not be written ({error.strerror})")


def read(workdir: Path) -> list[dict[str, Any]]:
    """The events, oldest first; lines that a kill or a disk has spoilt are passed over."""
    path, events = workdir / FILE_NAME, []
    for text in path.read_text(encoding="utf-8", errors="replace").splitlines() if path.exists() else ():
        try:
            line = json.loads(text)
        except ValueError:
            continue
        if isinstance(line, dict) and {"time", "event", "step", "details"} <= line.keys():
            events.append(line)
    return events


def origin(workdir: Path) -> Origin:
    """When, where, and by which code and command a run was trained."""
    starts = [event for event in read(workdir) if event["event"] in ("started", "resumed")]
    return Origin(
        commits=_each(event.get("commit", NOT_RECORDED) for event in starts),
        machines=_each(_machine(event) for event in starts),
        dates=_each(str(event["time"])[:10] for event in starts),
        commands=_each(event.get("command", NOT_RECORDED) for event in starts),
    )


def _machine(event: Mapping[str, str]) -> str:
    known = [event[fact] for fact in ("devices", "processor") if fact in event]
    return ", ".join(known) or NOT_RECORDED


def _each(texts: Iterable[object]) -> tuple[str, ...]:
    return tuple(dict.fromkeys(map(str, texts))) or (NOT_RECORDED,)
