"""Runs side by side on one page: larvseg report --compare=runs/a --compare=runs/b [--out=compare.html].

Of every run its scores (scores.json), the log, and the options in which they differ; the first is what the others are
compared with. A run's own report, report.html, is written when its training ends; the same command writes it anew.
"""

from __future__ import annotations

from pathlib import Path

from larvseg_jax.cli import Flags, Given
from larvseg_jax.console import console


def define(flags: Flags) -> None:
    """Adds the flags."""
    flags.texts("compare", "Folder of a run; once for each.")
    flags.text("out", "compare.html", "The page.")


def main(given: Given) -> None:
    """Writes the page and says where it is."""
    from larvseg_jax.compare import compare

    path = compare([Path(folder) for folder in given.compare], Path(given.out))
    console.print(f"{path.absolute()}: {len(given.compare)} runs")
