"""A grid from its description to its page of results."""

from __future__ import annotations

import dataclasses
from pathlib import Path

from larvseg_jax.console import console
from larvseg_jax.errors import UserError
from larvseg_jax.grid.description import Grid
from larvseg_jax.grid.plan import plan
from larvseg_jax.grid.report import write_report
from larvseg_jax.grid.runner import Runner


def run_grid(
    grid: Grid, out: Path, seeds: tuple[int, ...] | None, only: str | None, jobs: int, report: Path, command: str
) -> list[str]:
    """Trains what is missing and writes the page, also when it is stopped; a line for each run that failed.

    Args:
      grid: what is to be trained and shown.
      out: folder of the runs.
      seeds: instead of the grid's.
      only: the table whose rows are trained; None: all.
      jobs: runs at a time; 0: none is trained.
      report: page to write.
      command: what it says that it was made by.

    Raises:
      UserError: no table `only`, or a row whose config cannot be.
      Stopped: by SIGTERM or Ctrl-C.
    """
    if seeds is not None:
        grid = dataclasses.replace(grid, seeds=seeds)
    names = [table.name for table in grid.tables]
    if only is not None and only not in names:
        raise UserError(f"--only={only} is no table of the grid: use one of {', '.join(names)}")
    planned = plan(grid, out)
    failed: list[str] = []
    try:
        if jobs:
            runner = Runner(planned.needed(only), jobs)
            try:
                runner.run()
            finally:
                failed = [f"{job} failed: {line}" for job, line in runner.failed]
    finally:
        write_report(planned, command, report)
        console.print(f"report: {report.absolute()}")
    return failed
