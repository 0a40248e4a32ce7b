"""Does to a run everything that can happen to one, and says what it cost: python -m tests.drill [--kills=50]

A run of quickstart size is killed, stopped, robbed of its disk, its data and its checkpoints, given other clocks and
rivals, and started again each time. Its end has to be bit-identical to that of the same run left alone. Then the number
of devices changes, and the losses have to stay the same to float tolerance. Exit status 1 if a promise was broken.
"""

from __future__ import annotations

import os
import shutil
import sys
from pathlib import Path

os.environ.setdefault("JAX_PLATFORMS", "cpu")
os.environ.setdefault("MPLBACKEND", "Agg")

from larvseg_jax.cli import Flags, Given, guarded
from larvseg_jax.config import from_config
from larvseg_jax.console import console, stage
from larvseg_jax.errors import UserError
from tests.drill.drill import change_devices, differences, disturb, plan, table
from tests.drill.supervised import Run

TOLERANCE = 2e-3
"""Of a loss after some steps on other numbers of devices, relative: sums are taken in another order."""


def flags(argv: list[str]) -> Flags:
    """What can be given."""
    found = Flags("drill", argv)
    found.config("what is trained", required=True)
    found.whole("kills", 50, "how many times kill -9; the other faults in proportion", 1)
    found.whole("seed", 0, "of what is done when")
    found.whole("every", 20, "steps between two checkpoints", 2)
    found.text("out", "runs/drill", "folder; emptied first")
    return found


def main(given: Given) -> None:
    """The whole drill."""
    out = Path(given.out).absolute()
    shutil.rmtree(out, ignore_errors=True)
    config = given.config
    data = out / "data"
    source = Path(config.data_root).expanduser()
    if not source.is_dir():
        raise UserError(f"{source} is no folder: make quickstart writes the data, or give --config.data_root")
    shutil.copytree(source, data)
    own = {"data_root": str(data), "log_every": 1, "gallery": 0, "total_steps": config.total_steps}
    config.update(own)
    config.checkpoint.every = given.every
    passed = [argument for argument in sys.argv[1:] if argument.startswith("--config")]
    passed += [f"--config.{name}={value}" for name, value in own.items()] + [f"--config.checkpoint.every={given.every}"]
    harmed = [
        path for path in sorted(data.rglob("*")) if path.suffix in (".png", ".jpg") or "array_record" in path.name
    ]
    whole, run, moved = (Run(out, passed, harmed, workdir) for workdir in ("whole", "run", "devices"))
    with stage("the run left alone"):
        if whole.start().end(patience=3600) != 0:
            raise UserError(f"the run fails by itself: see {out}/whole_001.txt")
    with stage("the run disturbed"):
        rows = disturb(run, plan(given.kills, given.seed), given.seed)
    with stage("changed numbers of devices"):
        rows["changed number of devices"], worst = change_devices(moved, whole, steps=10)
    console.print(table(rows))
    different = differences(run, whole, from_config(config))
    console.print(f"lives: {len(run.starts())}; the end: {'bit-identical' if not different else different[:5]}")
    console.print(f"largest relative difference of a loss on other numbers of devices: {worst:.1e}")
    broken = [
        f"{name}: {problem}" for name, row in rows.items() for problem in row.problems if row.survived < row.tries
    ]
    for line in broken:
        console.print(line)
    if broken or different or worst > TOLERANCE:
        sys.exit(1)


if __name__ == "__main__":
    guarded(main, flags(sys.argv[1:]).parse())
