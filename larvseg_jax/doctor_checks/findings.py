"""What a check has to say."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable, Sequence
from typing import Any, Literal

Level = Literal["ok", "note", "warning", "error"]
LEVELS: tuple[Level, ...] = ("ok", "note", "warning", "error")
"""ok: looked at, as it should be. note: not known, or neither good nor bad. warning: worth a look, the run goes on.
error: stops the run sooner or later, or spoils what it learns."""


@dataclasses.dataclass(frozen=True)
class Finding:
    """One line.

    Attributes:
      level: one of LEVELS.
      where: stream ("streams.masks"), "eval", or what else it is about.
      text: one line: what is so, and if it is wrong, what to do.
      details: all single cases (file and value); the terminal shows the first few.
    """

    level: Level
    where: str
    text: str
    details: tuple[str, ...] = ()


@dataclasses.dataclass(frozen=True)
class Section:
    """Findings of one kind, and the same as numbers for scripts."""

    title: str
    findings: tuple[Finding, ...]
    facts: dict[str, Any] = dataclasses.field(default_factory=dict)


def count(sections: Iterable[Section]) -> dict[str, int]:
    """Number of findings of every level."""
    levels = [finding.level for section in sections for finding in section.findings]
    return {level: levels.count(level) for level in LEVELS}


def some(names: Sequence[str], most: int = 8) -> str:
    """The first few of a list, and how many more there are."""
    more = f" and {len(names) - most:,} more" if len(names) > most else ""
    return f"{', '.join(names[:most])}{more}" if names else "none"


def in_bytes(size: int) -> str:
    """1.5 GB, in powers of 1000."""
    if size < 1000:
        return f"{size} bytes"
    for power, unit in ((1, "kB"), (2, "MB")):
        if size < 1000 ** (power + 1):
            return f"{size / 1000**power:.1f} {unit}"
    return f"{size / 1e9:,.1f} GB"
