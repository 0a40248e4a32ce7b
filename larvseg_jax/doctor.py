"""Says, before the first step, whether a run can work and what is wrong with its data (docs/doctor.md).

    python -m larvseg_jax.doctor --config=configs/c171_wa150.py [--config.option=value ...] [--full]

Exit code 0: nothing stands in the way (there may be warnings); 1: errors; 2: bad command line or config.
"""

import sys
from pathlib import Path

from absl import flags
from ml_collections import config_flags

from larvseg_jax import cli

CONFIG = config_flags.DEFINE_config_file("config", None, "Config of the run.", lock_config=True)
FULL = flags.DEFINE_bool("full", False, "Look at every photo instead of a sample.")
PHOTOS = flags.DEFINE_integer("photos", 200, "Photos to look at in each data set.", lower_bound=1)
SECONDS = flags.DEFINE_float("seconds", 10.0, "Time to measure the data pipeline for; 0: do not.", lower_bound=0.0)
STEP = flags.DEFINE_bool("step", None, "Run a few steps to time them; by default where there is an accelerator.")
COMPILE = flags.DEFINE_bool("compile", False, "Compile the step and say how much memory it takes.")
OUT = flags.DEFINE_string("out", None, "Contact sheet to write; by default doctor.html in the run's folder.")
JSON = flags.DEFINE_string("json", None, "File for the same findings, all of them, as JSON.")
flags.mark_flag_as_required("config")


def main() -> None:
    """Examines the run of the config and leaves with the exit code."""
    # Imported late: a mistyped flag is answered before JAX has started.
    from larvseg_jax.config import from_config
    from larvseg_jax.doctor_checks.examination import Extent, diagnose, on_accelerator

    run = from_config(CONFIG.value)
    extent = Extent(
        photos=None if FULL.value else PHOTOS.value,
        seconds=SECONDS.value,
        compile=COMPILE.value,
        step=on_accelerator() if STEP.value is None else STEP.value,
        sheet=Path(OUT.value) if OUT.value else run.workdir / "doctor.html",
    )
    try:
        sys.exit(diagnose(run, extent, Path(JSON.value) if JSON.value else None))
    except KeyboardInterrupt:
        print("interrupted", file=sys.stderr)
        sys.exit(130)


if __name__ == "__main__":
    cli.run(main)
