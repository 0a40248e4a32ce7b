"""Trains the rows of a grid with several seeds and writes their table: larvseg grid FILE --out=runs/grid.

    larvseg grid configs/grids/voc_animals.py --out=runs/voc --jobs=2
    larvseg grid configs/grids/voc_animals.py --out=runs/voc --report=docs/results_voc.md --jobs=0
    larvseg grid configs/grids/voc_animals.py:configs/voc_animals.py:larvseg,learn=0 --out=runs/voc_dinov2
        --set=pretrained=dinov2_vits14.npz --set=features=features/voc

Every row and seed is a training of its own, python train.py with a folder in --out. The same command resumes what was
interrupted and leaves alone what is finished, or trained by another process; so it may run on several machines that
share --out. FILE may have an argument, FILE.py:configs/x.py: the config that its rows change. A run that fails stops no
other one: it is named at the end, and the exit code is 2. What the page shows: docs/grids.md.
"""

from __future__ import annotations

import shlex
from pathlib import Path

from larvseg_jax.cli import Flags, Given, fail
from larvseg_jax.commands._places import check_output
from larvseg_jax.commands._settings import setting
from larvseg_jax.errors import UserError

TAKES_REST = True  # FILE
INTERRUPTED = "the same command goes on; runs go on from their last checkpoints"


def define(flags: Flags) -> None:
    """Adds the flags."""
    flags.text("out", None, "Folder for the runs, each in one of its own.", required=True)
    flags.whole("jobs", 1, "Runs at a time; several may share a GPU. 0: train nothing, write the report.", least=0)
    flags.text("only", None, "Name of the one table whose rows are trained; the report has all.")
    flags.text("seeds", None, "Seeds separated by commas, 0,1,2; by default those of the grid.")
    flags.texts("set", "option=value: of the config, in all rows that do not set it themselves; may be repeated.")
    flags.text("report", None, "Page to write, ending in .md; by default results.md in --out.")


def main(given: Given) -> None:
    """Trains what is missing and writes the report."""
    if len(given.rest) != 1:
        raise UserError("give one grid: larvseg grid configs/grids/voc_animals.py --out=runs/grid")
    report = Path(given.report or Path(given.out) / "results.md")
    check_output(str(report), "report" if given.report else "out", ".md")
    seeds = _seeds(given.seeds) if given.seeds else None
    # Imported late: a mistyped flag is answered before JAX is loaded.
    from larvseg_jax.grid.description import load_grid
    from larvseg_jax.grid.grid import run_grid

    options = dict(setting(text, "total_steps=1000") for text in given.set)
    grid = load_grid(given.rest[0]).with_options(options)
    flags = [f"--set={text}" for text in given.set] + ([f"--seeds={given.seeds}"] if seeds else [])
    command = shlex.join(["larvseg", "grid", given.rest[0], "--out=DIR", *flags])
    problems = run_grid(grid, Path(given.out), seeds, given.only, given.jobs, report, command)
    if problems:
        fail(*problems)


def _seeds(text: str) -> tuple[int, ...]:
    try:
        return tuple(int(seed) for seed in text.split(","))
    except ValueError:
        raise UserError(f"--seeds={text} is not a list of whole numbers: give 0,1,2") from None
