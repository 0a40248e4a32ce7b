"""The tables of a grid as a page of Markdown, with a plot for each, and of which runs every number is."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Iterable, Mapping
from pathlib import Path

from larvseg_jax.console import first_few, printable
from larvseg_jax.disk import write_text
from larvseg_jax.errors import UserError
from larvseg_jax.grid.description import Row, Table
from larvseg_jax.grid.plan import Job, Plan
from larvseg_jax.grid.plot import draw_table
from larvseg_jax.grid.results import Result, read_result
from larvseg_jax.report.markdown import markdown_table
from larvseg_jax.report.statistics import Estimate, estimate, paired_difference, percent

NOT_RUN = "not yet run"


@dataclasses.dataclass(frozen=True)
class _Numbered:
    """A finished run, and its number in the page's last table."""

    number: int
    job: Job
    result: Result


def write_report(plan: Plan, command: str, path: Path) -> None:
    """Writes the page, and beside it a PNG for each table, with the runs that are finished; says how many are missing.

    UserError if a run has not a score that a table shows, or a file cannot be written.
    """
    found = _finished(plan)
    path.parent.mkdir(parents=True, exist_ok=True)
    parts = [
        "# Results of a grid",
        f"Made by `{printable(command)}`. Scores in percent, at the last step of every run: mean ± standard error "
        "over the seeds, where there are several. Δ is the difference to the row that is called the reference, seed by "
        "seed, with its own standard error and the number of seeds that both have. The numbers behind "
        "each row are those of its runs in the last table.",
    ]
    for table in plan.grid.tables:
        parts += _section(plan, table, found, path)
    parts += ["## Runs", _runs(plan, found)]
    write_text(path, "\n\n".join(parts) + "\n")


def _finished(plan: Plan) -> dict[Path, _Numbered]:
    """Folder -> the run in it, for those that are finished."""
    found: dict[Path, _Numbered] = {}
    for job in plan.jobs.values():
        if job.folder not in found and (result := read_result(job)) is not None:
            found[job.folder] = _Numbered(len(found) + 1, job, result)
    return found


def _section(plan: Plan, table: Table, found: Mapping[Path, _Numbered], path: Path) -> list[str]:
    """Heading, table, plot, and what has to be said of the runs."""
    runs = {row.name: _runs_of(plan, table, row, found) for row in table.rows}
    values = {score: {name: _values(of, score) for name, of in runs.items()} for score in table.scores}
    differences = [f"Δ {score}" for score in table.scores]
    lines = [["row", "seeds", *table.scores, *differences, "runs"]]
    for row in table.rows:
        means = [_mean(estimate([*values[score][row.name].values()])) for score in table.scores]
        apart = [_difference(values[score], row.name, table.reference) for score in table.scores]
        numbers = ", ".join(str(run.number) for run in runs[row.name].values())
        count = f"{len(runs[row.name])} of {len(plan.grid.seeds)}"
        lines.append([row.name, count, *means, *apart, numbers])
    parts = [f"## {table.title}", markdown_table(lines)]
    commits = _commits(run.result for of in runs.values() for run in of.values())
    if len(commits) > 1:
        said = ", ".join(f"{commit} ({count})" for commit, count in commits.items())
        parts.append(f"**These runs are of different code.** Runs by commit: {said}.")
    if any(runs.values()):
        picture = path.with_name(f"{path.stem}_{table.name}.png")
        picture.write_bytes(
            draw_table({score: {name: [*v.values()] for name, v in of.items()} for score, of in values.items()})
        )
        parts.append(f"![{printable(table.title)}]({picture.name})")
    return parts


def _runs_of(plan: Plan, table: Table, row: Row, found: Mapping[Path, _Numbered]) -> dict[int, _Numbered]:
    """Seed -> the finished run of a row."""
    jobs = {seed: plan.jobs[table.name, row.name, seed] for seed in plan.grid.seeds}
    return {seed: found[job.folder] for seed, job in jobs.items() if job.folder in found}


def _values(runs: Mapping[int, _Numbered], score: str) -> dict[int, float]:
    """Seed -> a score of a row's runs."""
    for run in runs.values():
        if score not in run.result.scores:
            there = ", ".join(run.result.scores)
            raise UserError(f"{run.job.folder} has no score {score}: let the table show some of {there}")
    return {seed: run.result.scores[score] for seed, run in runs.items()}


def _mean(found: Estimate | None) -> str:
    return NOT_RUN if found is None else percent(found)


def _difference(values: Mapping[str, Mapping[int, float]], row: str, reference: str) -> str:
    if row == reference:
        return "reference"
    found = paired_difference(values[row], values[reference])
    return "–" if found is None or math.isnan(found.mean) else f"{percent(found, '+')} ({found.seeds})"


def _commits(results: Iterable[Result]) -> dict[str, int]:
    """Commit -> of how many runs; a run that was resumed by other code counts for each."""
    counts: dict[str, int] = {}
    for result in results:
        for commit in result.origin.commits:
            counts[commit] = counts.get(commit, 0) + 1
    return counts


def _runs(plan: Plan, found: Mapping[Path, _Numbered]) -> str:
    """Where every number comes from."""
    lines = [["#", "folder", "config", "options", "seed", "steps", "commit", "date", "machine"]]
    for run in found.values():
        row, result, origin = run.job.row, run.result, run.result.origin
        options = ", ".join(f"`{name}={value}`" for name, value in row.options.items()) or "–"
        facts = [first_few(of, 3) for of in (origin.commits, origin.dates, origin.machines)]
        lines.append(
            [str(run.number), run.job.folder.name, f"`{row.config}`", options, str(run.job.seed), f"{result.steps:,}"]
            + facts
        )
    missing = len({job.folder for job in plan.jobs.values()}) - len(found)
    rest = f"\n\n{missing} runs are {NOT_RUN}, or have not ended." if missing else ""
    return (markdown_table(lines) if found else "") + rest
