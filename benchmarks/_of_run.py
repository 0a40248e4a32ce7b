"""A benchmark of a trained run: its flags, and the one line for what is wrong."""

from __future__ import annotations

import argparse
from collections.abc import Callable, Sequence
from pathlib import Path

from larvseg_jax.cli import fail
from larvseg_jax.errors import UserError

Measure = Callable[[Path, int, int | None, str | None], object]
"""(folder of a run or of a checkpoint, how many photos, step or None for the newest, data_root or None)."""


def measure_run(measure: Measure, page: str | None, count: int, arguments: Sequence[str] | None) -> None:
    """Measures what the command line names; `page`: the program's help, `count`: of photos, if none is given."""
    parser = argparse.ArgumentParser(description=page, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--run", required=True, type=Path, help="folder of a run or of a checkpoint")
    parser.add_argument("--step", type=int, help="of the run; its newest by default")
    parser.add_argument("--count", type=int, default=count, help="photos")
    parser.add_argument("--data_root", help="where the data is, if not where the config says")
    given = parser.parse_args(arguments)
    try:
        measure(given.run, given.count, given.step, given.data_root)
    except UserError as error:
        fail(str(error))
