"""A part of a benchmark as a process of its own, with a time limit: it fails alone, and says why."""

from __future__ import annotations

import collections
import contextlib
import json
import os
import signal
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Literal, NamedTuple, TextIO

REASON_CHARACTERS = 300


class Outcome(NamedTuple):
    """Of a part: what it wrote (None if it failed), why it failed, wall seconds."""

    status: Literal["done", "failed"]
    result: Any
    reason: str
    seconds: float


def run_part(command: Sequence[str], limit: float, environment: Mapping[str, str] | None = None) -> Outcome:
    """Runs a command with `--result=FILE` behind it, where it is to write JSON.

    What it prints is passed on. One that ends with another code than 0, writes no JSON or takes more than `limit`
    seconds has failed; whatever it started ends with it.
    """
    begun = time.monotonic()
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder, "result.json")
        process = subprocess.Popen(
            [*command, f"--result={file}"],
            stderr=subprocess.PIPE,
            text=True,
            errors="replace",
            env=None if environment is None else dict(environment),
            start_new_session=True,  # so that all its processes can be ended together
        )
        last: collections.deque[str] = collections.deque(maxlen=50)
        assert process.stderr is not None
        reader = threading.Thread(target=_pass_on, args=(process.stderr, last), daemon=True)
        reader.start()
        late = False
        try:
            process.wait(limit)
        except subprocess.TimeoutExpired:
            late = True
        finally:  # also when this process is interrupted
            with contextlib.suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)
            process.wait()
            reader.join(5.0)
        seconds = time.monotonic() - begun
        if late:
            return Outcome("failed", None, f"took more than {limit:g} s", seconds)
        if process.returncode:
            return Outcome("failed", None, _reason(last) or f"ended with code {process.returncode}", seconds)
        try:
            return Outcome("done", json.loads(file.read_text()), "", seconds)
        except (OSError, ValueError):
            return Outcome("failed", None, "wrote no result", seconds)


def end_parts_when_stopped() -> None:
    """From now on SIGTERM ends this process as an error would: with the part that it has running."""
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(128 + signal.SIGTERM))


def _pass_on(stream: TextIO, last: collections.deque[str]) -> None:
    """Prints the lines of a process's stderr and keeps the last ones."""
    with stream:
        for line in stream:
            sys.stderr.write(line)
            sys.stderr.flush()
            if line.strip():
                last.append(line.strip())


def _reason(last: Sequence[str]) -> str:
    """The last line that names an error, of a process that this one had started before its own; else the last line."""
    heads = [line.partition(":")[0].rpartition(".")[2] for line in last]
    named = [line for line, head in zip(last, heads, strict=True) if head.endswith(("Error", "error", "Exit"))]
    causes = [line for line in named if "CalledProcessError" not in line]
    return (causes or named or list(last) or [""])[-1][:REASON_CHARACTERS]
