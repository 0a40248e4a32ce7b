"""Resident memory of this process (Linux); needs nothing but the standard library."""

from __future__ import annotations

from pathlib import Path


def resident() -> int:
    """Bytes resident now."""
    return _status("VmRSS")


def peak_resident() -> int:
    """Most bytes that were resident since the process began, or since `forget_peak`."""
    return _status("VmHWM")


def forget_peak() -> None:
    """The peak is counted anew from here."""
    Path("/proc/self/clear_refs").write_text("5")


def _status(name: str) -> int:
    for line in Path("/proc/self/status").read_text().splitlines():
        if line.startswith(f"{name}:"):
            return 1024 * int(line.split()[1])
    raise OSError(f"/proc/self/status has no {name}: this needs Linux")
