"""A long training seen from outside: does it leak memory, handles or threads, does it slow down?

    python -m benchmarks.soak --config=configs/quickstart.py --minutes=30 --config.workdir=runs/soak

The training has no end of its own; checkpoints and evaluations are as in the config, which may be given otherwise by
flags. Every few seconds the process is looked at through /proc (Linux), its log for the steps. The first tenth, in
which it starts, is left out.
"""

from __future__ import annotations

import dataclasses
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np

from larvseg_jax.cli import Flags, Given, run_with
from larvseg_jax.console import console, track
from larvseg_jax.errors import UserError
from larvseg_jax.report.metric_log import read_history

PAUSE = 5.0  # seconds between two looks


@dataclasses.dataclass(frozen=True)
class Look:
    """A process at one moment: seconds since the first look, and of processor time; resident bytes, handles, ..."""

    seconds: float
    processor: float
    memory: int
    handles: int
    threads: int
    step: int


def look_at(pid: int, workdir: Path, begun: float) -> Look:
    """Looks at a process. UserError if it has ended."""
    folder = Path(f"/proc/{pid}")
    try:
        status = dict(line.split(":", 1) for line in (folder / "status").read_text().splitlines())
        handles = len(list((folder / "fd").iterdir()))
        memory = int(status["VmRSS"].split()[0]) * 1024
        ticks = sum(map(int, (folder / "stat").read_text().rpartition(")")[2].split()[11:13]))
    except (OSError, KeyError) as error:
        raise UserError(f"the training has ended: see {workdir}") from error
    history = read_history(workdir)
    seconds, step = time.monotonic() - begun, history[-1]["step"] if history else 0
    return Look(seconds, ticks / os.sysconf("SC_CLK_TCK"), memory, handles, int(status["Threads"]), step)


def summary(looks: list[Look]) -> dict[str, str]:
    """What became of it between the first tenth and the end."""
    looks = looks[len(looks) // 10 :]
    hours = np.array([look.seconds for look in looks]) / 3600
    slope = np.polyfit(hours, [look.memory / 2**20 for look in looks], 1)[0]
    third = max(len(looks) // 3, 2)
    thirds = [np.median([look.memory / 2**20 for look in part]) for part in (looks[:third], looks[-third:])]
    (first, first_work), (last, last_work) = _speeds(looks[:third]), _speeds(looks[-third:])
    handles, threads = ([getattr(look, name) for look in looks] for name in ("handles", "threads"))
    return {
        "steps": f"{looks[0].step} to {looks[-1].step} in {(looks[-1].seconds - looks[0].seconds) / 60:.1f} minutes",
        "resident memory": f"first third {thirds[0]:.0f} MiB, last third {thirds[1]:.0f} MiB (medians); "
        f"slope {slope:+.1f} MiB an hour",
        "handles": f"{min(handles)} to {max(handles)}, at the end {handles[-1]}",
        "threads": f"{min(threads)} to {max(threads)}, at the end {threads[-1]}",
        "steps/s": f"first third {first:.2f}, last third {last:.2f}, ratio {last / first:.3f}",
        # This one does not depend on what else the machine does.
        "steps per second of processor time": f"{first_work:.2f}, {last_work:.2f}, ratio {last_work / first_work:.3f}",
    }


def _speeds(looks: list[Look]) -> tuple[float, float]:
    """Steps per second, and per second of processor time."""
    first, last = looks[0], looks[-1]
    steps = last.step - first.step
    return steps / (last.seconds - first.seconds), steps / (last.processor - first.processor)


def main(given: Given) -> None:
    """Trains for so many minutes and prints the summary."""
    workdir = Path(given.config.workdir)
    if not given.config.workdir or workdir.exists():
        raise UserError(f"--config.workdir={workdir}: give a folder that does not exist yet")
    passed = [argument for argument in sys.argv[1:] if argument.startswith("--config")]
    command = [sys.executable, "train.py", *passed, "--config.total_steps=100000000", "--config.log_every=10"]
    workdir.mkdir(parents=True)
    with (workdir / "output.txt").open("w") as output:
        process = subprocess.Popen(command, stdout=output, stderr=output)
    try:
        begun = time.monotonic()
        while not read_history(workdir):
            look_at(process.pid, workdir, begun)
            time.sleep(1.0)
        begun, looks = time.monotonic(), []
        rounds = round(given.minutes * 60 / PAUSE)
        for _ in track(range(rounds), rounds, "soak"):
            time.sleep(PAUSE)
            looks.append(look_at(process.pid, workdir, begun))
    finally:
        process.send_signal(signal.SIGTERM)
        process.wait()
    for name, value in summary(looks).items():
        console.print(f"{name}: {value}")
    if process.returncode != 128 + signal.SIGTERM:
        raise UserError(f"the training ended with {process.returncode}: see {workdir}/output.txt")


def flags(argv: list[str]) -> Flags:
    """What can be given."""
    found = Flags("soak", argv)
    found.config("what is trained", required=True)
    found.number("minutes", 30.0, "how long", 0.5)
    return found


if __name__ == "__main__":
    run_with(flags(sys.argv[1:]), main, __doc__)
