"""Says, before the first step, whether a run can work and what is wrong with its data (docs/doctor.md).

    python -m larvseg_jax.doctor --config=configs/c171_wa150.py [--config.option=value ...] [--full]

Exit code 0: nothing stands in the way (there may be warnings); 1: errors; 2: bad command line or config.
"""

from __future__ import annotations

import sys
from pathlib import Path

from larvseg_jax.cli import Flags, Given
from larvseg_jax.commands._places import check_output


def define(flags: Flags) -> None:
    """Adds the flags."""
    flags.config("Config of the run.", required=True)
    flags.switch("full", "Look at every photo instead of a sample.")
    flags.whole("photos", 200, "Photos to look at in each data set.", least=1)
    flags.number("seconds", 10.0, "Time to measure the data pipeline for; 0: do not.", least=0.0)
    flags.switch("time_step", "Run a few steps to time them; by default where there is an accelerator.", default=None)
    flags.switch("compile", "Compile the step and say how much memory it takes.")
    flags.text("out", None, "Contact sheet to write; by default doctor.html in the run's folder.")
    flags.text("json", None, "File for the same findings, all of them, as JSON.")


def main(given: Given) -> None:
    """Examines the run of the config and leaves with the exit code."""
    check_output(given.out, "out")
    check_output(given.json, "json")
    # Imported late: a mistyped flag is answered before JAX has started.
    from larvseg_jax.config import from_config
    from larvseg_jax.doctor.examination import Extent, diagnose, on_accelerator

    run = from_config(given.config)
    extent = Extent(
        photos=None if given.full else given.photos,
        seconds=given.seconds,
        compile=given.compile,
        step=on_accelerator() if given.time_step is None else given.time_step,
        sheet=Path(given.out) if given.out else run.workdir / "doctor.html",
    )
    sys.exit(diagnose(run, extent, Path(given.json) if given.json else None))
