"""Resident memory of this process or another (Linux); needs nothing but the standard library."""

from __future__ import annotations

import contextlib
from pathlib import Path


def resident() -> int:
    """Bytes resident now."""
    return _status("VmRSS")


def peak_resident(pid: int | None = None) -> int:
    """Most bytes that were resident since the process (by default this one) began, or since `forget_peak`.

    OSError if it has ended.
    """
    return _status("VmHWM", pid)


def family(pid: int) -> list[int]:
    """A process and all that it has started, and these, and still run."""
    found = [pid]
    for task in Path(f"/proc/{pid}/task").glob("*/children"):
        with contextlib.suppress(OSError):  # it has ended
            found += [one for child in task.read_text().split() for one in family(int(child))]
    return found


def forget_peak() -> None:
    """The peak is counted anew from here."""
    Path("/proc/self/clear_refs").write_text("5")


def _status(name: str, pid: int | None = None) -> int:
    file = Path(f"/proc/{pid or 'self'}/status")
    for line in file.read_text().splitlines():
        if line.startswith(f"{name}:"):
            return 1024 * int(line.split()[1])
    raise OSError(f"{file} has no {name}: this needs Linux")
