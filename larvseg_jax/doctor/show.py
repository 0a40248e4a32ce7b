"""Findings on the terminal and as JSON."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from rich.text import Text

from larvseg_jax.console import console, printable
from larvseg_jax.disk import write_text
from larvseg_jax.doctor.findings import Section, count

_STYLES = {"ok": "green", "note": "cyan", "warning": "yellow", "error": "bold red"}
_CASES = 10  # single cases printed under a line; the JSON file has them all


def show_section(section: Section) -> None:
    """Prints a section, a line for each finding."""
    console.print(Text(f"\n{section.title}", "bold"))
    for finding in section.findings:
        line = Text(f"  {finding.level:<8}", _STYLES[finding.level])
        console.print(line.append(f" {finding.where}: {printable(finding.text)}", "default"))
        for case in finding.details[:_CASES]:
            console.print(Text(f"             {printable(case)}"))
        if len(finding.details) > _CASES:
            console.print(Text(f"             and {len(finding.details) - _CASES:,} more (--json=FILE lists all)"))


def show_summary(sections: Sequence[Section]) -> None:
    """Prints how many lines of each kind there are, and the errors once more."""
    counts = count(sections)
    console.print(Text("\nsummary", "bold"))
    line = Text("  ")
    for level, number in counts.items():
        line.append(f"{number} {level}{'s' if number != 1 and level != 'ok' else ''}  ", _STYLES[level])
    console.print(line)
    verdict = "errors: correct them before training" if counts["error"] else "nothing stands in the way of training"
    console.print(Text(f"  {verdict}", _STYLES["error" if counts["error"] else "ok"]))


def write_json(file: Path, config: str, sections: Sequence[Section]) -> None:
    """Writes all findings and facts; UserError if the file cannot be written."""
    content: dict[str, Any] = {
        "config": config,
        "counts": count(sections),
        "sections": {
            section.title: {
                "findings": [dataclasses.asdict(finding) for finding in section.findings],
                "facts": section.facts,
            }
            for section in sections
        },
    }
    write_text(file, json.dumps(content, indent=2, default=str) + "\n", "give another --json")
