"""What happened to a run besides its steps: starts, restarts, options that changed, data that failed.

history.jsonl in the run's folder: one JSON object per line, only ever appended to.
"""

from __future__ import annotations

import json
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from larvseg_jax.console import console
from larvseg_jax.devices.processes import is_first_process

FILE_NAME = "history.jsonl"
WHERE = ("commit", "devices", "processor")
"""Facts that "started" and "resumed" have besides: of which code, and on what, the steps from there on were taken."""


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
