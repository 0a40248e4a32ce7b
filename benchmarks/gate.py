"""A gate against regress: the cheap ratios, measured on the CPU and compared with a committed table.

    python -m benchmarks.gate [--parts=attention,classes] [--torch_python=PATH]
    python -m benchmarks.gate --update      writes what was measured into benchmarks/ratios.json and docs/performance.md
    python -m benchmarks.gate --doc         writes the table of docs/performance.md from benchmarks/ratios.json

Every figure is what ours takes over what a named baseline takes in the same run: less is better, and no second is
compared with one of another day. Each part has a process of its own; one that comes out worse than its tolerance is
measured once more, and the lower value counts. Exit code 1 and a line for every figure that is worse or missing; one
that is better beyond its tolerance, or new, is said and is no fault. The training step beside PyTorch is measured where
--torch_python names an interpreter that has it.
"""

from __future__ import annotations

import dataclasses
import datetime
import json
import os
import sys
from collections.abc import Callable, Collection, Mapping, Sequence
from pathlib import Path
from typing import Any

from rich.table import Table

from benchmarks import _ratios
from benchmarks._parts import Outcome, end_parts_when_stopped, run_part
from benchmarks._ratio_table import Figure, RatioTable, Verdict, compare, lower_of, read_table, with_table, write_table
from larvseg_jax import provenance
from larvseg_jax.cli import Flags, Given, run_with
from larvseg_jax.console import console
from larvseg_jax.disk import write_text
from larvseg_jax.errors import UserError

TABLE = Path(__file__).with_name("ratios.json")
PAGE = Path(__file__).resolve().parent.parent / "docs" / "performance.md"
LIMIT = 900.0
"""Seconds of a part."""

ENVIRONMENT = {
    "JAX_PLATFORMS": "cpu",
    # As the Makefile has it: without, freed memory is faulted in anew at every call.
    "MALLOC_MMAP_THRESHOLD_": "268435456",
    "MALLOC_TRIM_THRESHOLD_": "1073741824",
}

Measure = Callable[[str], Outcome]
"""Name of a part -> its figures, as JSON has them."""


def measure_parts(parts: Sequence[str], measure: Measure) -> tuple[dict[str, Figure], dict[str, str]]:
    """All figures, and for each part that failed the reason; progress is printed."""
    figures: dict[str, Figure] = {}
    failed = {}
    for number, part in enumerate(parts, 1):
        console.print(f"part {number} of {len(parts)}: {part} ...")
        outcome = measure(part)
        if outcome.status == "failed":
            failed[part] = outcome.reason
        else:
            figures |= {name: Figure(**figure) for name, figure in outcome.result.items()}
        console.print(f"part {number} of {len(parts)}: {part} {outcome.status}, {outcome.seconds:.0f} s")
    return figures, failed


def judge(
    parts: Sequence[str], left_out: Collection[str], table: RatioTable, measure: Measure
) -> tuple[dict[str, Figure], list[Verdict], list[str]]:
    """Measures, and once more what came out worse: figures, verdicts on them, a line for each part that failed."""
    found, failed = measure_parts(parts, measure)
    left_out = {*left_out, *failed}
    doubtful = {found[verdict.name].part for verdict in compare(found, table, left_out) if verdict.kind == "worse"}
    if doubtful:
        console.print(f"worse than the table, so once more: {', '.join(sorted(doubtful))}")
        found = lower_of(found, measure_parts([part for part in parts if part in doubtful], measure)[0])
    return found, compare(found, table, left_out), [f"FAILED: {part}: {reason}" for part, reason in failed.items()]


def measure_in_processes(torch_python: str | None) -> Measure:
    """Each part in a process of its own."""
    given = [f"--torch_python={torch_python}"] if torch_python else []

    def measure(part: str) -> Outcome:
        command = [sys.executable, "-m", "benchmarks.gate", f"--one={part}", *given]
        return run_part(command, LIMIT, {**os.environ, **ENVIRONMENT})

    return measure


def update(parts: Sequence[str], measure: Measure, table: Path, page: Path) -> None:
    """Measures and writes table and page. UserError if a part fails: what stands there stays."""
    before = read_table(table).figures if table.is_file() else {}
    figures, failed = measure_parts(parts, measure)
    if failed:
        reasons = "; ".join(f"{part}: {reason}" for part, reason in failed.items())
        raise UserError(f"nothing was written, because a part failed ({reasons}): mend it and begin again")
    versions = provenance.versions()
    commit, date = versions.pop("commit"), datetime.datetime.now(datetime.UTC).date().isoformat()
    write_table(table, RatioTable(provenance.processor(), versions, commit, date, figures))
    write_doc(table, page)
    show(figures, before)
    for name in sorted(before.keys() - figures.keys()):
        console.print(f"no longer in the table: {name}")
    console.print(f"written: {table.name} and {page.name}; commit both")


def write_doc(table: Path, page: Path) -> None:
    """Writes the table into the page."""
    write_text(page, with_table(page.read_text("utf-8"), read_table(table)))


def show(figures: Mapping[str, Figure], before: Mapping[str, Figure]) -> None:
    """Prints what was measured beside what the table has."""
    shown = Table("figure", "measured", "table", "tolerance", "over")
    for name, figure in figures.items():
        old = f"{before[name].value:.4g}" if name in before else ""
        shown.add_row(name, f"{figure.value:.4g}", old, f"{figure.tolerance:.0%}", figure.baseline)
    console.print(shown)


def check(parts: Sequence[str], left_out: Collection[str], table: RatioTable, measure: Measure) -> int:
    """Measures, prints what is to be said, and gives the exit code: 1 if a figure is worse or missing."""
    if (machine := provenance.processor()) != table.machine:
        console.print(f"the table is of {table.machine}, this is {machine}: ratios may differ for that alone")
    figures, verdicts, failed = judge(parts, left_out, table, measure)
    show(figures, table.figures)
    for verdict in verdicts:
        if verdict.kind != "same":
            console.print(verdict.line)
    for line in failed:
        console.print(line)
    kinds = [verdict.kind for verdict in verdicts]
    if {"better", "new"} & set(kinds):
        console.print("better or new: python -m benchmarks.gate --update on a quiet machine, and commit what it writes")
    wrong = kinds.count("worse") + kinds.count("missing") + len(failed)
    console.print(f"{kinds.count('same') + kinds.count('better')} figures hold, {wrong} are worse or missing")
    return 1 if wrong else 0


def main(given: Given) -> None:
    """Measures what is asked for and leaves with 0 or 1."""
    if given.one:
        write_text(Path(given.result), json.dumps(one(given.one, given.torch_python or "")))
        return
    if given.doc:
        write_doc(TABLE, PAGE)
        return
    end_parts_when_stopped()
    every = [*_ratios.PARTS, _ratios.PYTORCH]
    parts = given.parts.split(",") if given.parts else every
    if unknown := [part for part in parts if part not in every]:
        raise UserError(f"--parts={given.parts}: there is no part {unknown[0]!r}: {', '.join(every)}")
    if given.update and given.parts:
        raise UserError("--update writes the whole table: leave --parts away")
    if _ratios.PYTORCH in parts and not given.torch_python:
        console.print(f"part {_ratios.PYTORCH}: skipped, because no --torch_python names a Python that has it")
        parts = [part for part in parts if part != _ratios.PYTORCH]
    measure = measure_in_processes(given.torch_python)
    if given.update:
        update(parts, measure, TABLE, PAGE)
        return
    sys.exit(check(parts, [part for part in every if part not in parts], read_table(TABLE), measure))


def one(part: str, torch_python: str) -> dict[str, Any]:
    """The figures of a part, as JSON has them."""
    figures = _ratios.pytorch(torch_python) if part == _ratios.PYTORCH else _ratios.PARTS[part]()
    return {name: dataclasses.asdict(figure) for name, figure in figures.items()}


def flags(argv: Sequence[str]) -> Flags:
    """What can be given."""
    found = Flags("gate", argv)
    found.text("parts", None, f"only some of {', '.join(_ratios.PARTS)}, {_ratios.PYTORCH}")
    found.text("torch_python", None, "an interpreter with PyTorch: measures the training step beside it, too")
    found.switch("update", "writes table and page instead of comparing")
    found.switch("doc", "writes the page's table from the committed one and measures nothing")
    found.text("one", None, "of the program itself: measures a part in this process")
    found.text("result", None, "of the program itself: where its figures go")
    return found


if __name__ == "__main__":
    run_with(flags(sys.argv[1:]), main, __doc__)
