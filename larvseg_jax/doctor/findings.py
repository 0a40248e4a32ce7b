"""What a check has to say."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable
from typing import Any, Literal

from data_pipelines.faults import Fault
from data_pipelines.picture_files import REPLACE

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


def case(fault: Fault) -> str:
    """A single case, with what to do where the file is of a kind that needs more than to be replaced."""
    own = fault.kind == "unreadable" and fault.remedy not in ("", REPLACE)
    return f"{fault.what}: {fault.remedy}" if own else fault.what


def count(sections: Iterable[Section]) -> dict[str, int]:
    """Number of findings of every level."""
    levels = [finding.level for section in sections for finding in section.findings]
    return {level: levels.count(level) for level in LEVELS}
