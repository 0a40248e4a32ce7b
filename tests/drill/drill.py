"""The drill: one run under every fault, compared in the end with one that nobody disturbed."""

from __future__ import annotations

import dataclasses
import random
import signal
from collections.abc import Mapping

import jax
import numpy as np
from rich.table import Table

from larvseg_jax import assemble
from larvseg_jax.config import Experiment
from larvseg_jax.console import console, first_few
from larvseg_jax.devices.mesh import make_mesh
from larvseg_jax.report.metric_log import read_history
from larvseg_jax.training.state import TrainState
from larvseg_jax.weights.checkpoint import Checkpoints
from tests.drill.faults import FAULTS, NotHere
from tests.drill.supervised import Failure, Run

DEVICES = (4, 2, 1)
"""How many devices a run has, one after the other."""


@dataclasses.dataclass
class Row:
    """What became of one kind of fault."""

    tries: int = 0
    survived: int = 0
    most_lost: int | None = None
    problems: list[str] = dataclasses.field(default_factory=list)


def plan(kills: int, seed: int) -> list[str]:
    """Names of faults in random order, `kills` of them kill -9 and the others in proportion, each at least once."""
    share = kills / sum(count for name, (_, count) in FAULTS.items() if name.startswith("kill -9"))
    names = [name for name, (_, count) in FAULTS.items() for _ in range(max(1, round(count * share)))]
    random.Random(seed).shuffle(names)
    return names


def disturb(run: Run, names: list[str], seed: int) -> dict[str, Row]:
    """Does all that to a run, one after the other, then lets it end; what became of each.

    What a fault costs is seen when the next life begins: steps that were logged and are taken again.
    """
    rows = {name: Row() for name in (*FAULTS, "the end")}
    rng = random.Random(seed + 1)
    begun, reached, culprit = 0, 0, ""
    for number, name in enumerate([*names, "the end"], start=1):
        row, logged = rows[name], run.log_time()
        try:
            row.tries += 1
            FAULTS[name][0](run, rng) if name in FAULTS else _end(run)
            row.survived += 1
        except NotHere as why:
            row.tries -= 1
            row.problems.append(str(why))
        except Failure as failure:
            row.problems.append(str(failure))
        starts = run.starts()[begun:]
        if starts:
            if culprit:
                rows[culprit].most_lost = max(rows[culprit].most_lost or 0, reached - starts[0])
            culprit = name
        begun += len(starts)
        if run.log_time() != logged:
            reached = run.step()
        elif starts:  # it ended before its first step
            reached = starts[-1]
        console.print(
            f"{number}/{len(names) + 1} {name}: from step {first_few(map(str, starts))} to {reached}",
            *row.problems[-1:],
        )
    return rows


def _end(run: Run) -> None:
    life = run.start()
    if life.end(patience=3600) != 0:
        raise Failure(f"exit code {life.process.returncode}: {life.text()[-600:]}")


def differences(run: Run, whole: Run, experiment: Experiment) -> list[str]:
    """Arrays and logged lines in which the ends of two runs are not the same, bit for bit."""
    ours, theirs = (_final_state(each, experiment) for each in (run, whole))
    named = zip(jax.tree_util.tree_leaves_with_path(ours), jax.tree.leaves(theirs), strict=True)
    found = [jax.tree_util.keystr(path) for (path, one), other in named if not np.array_equal(one, other)]
    logs = [_losses(each) for each in (run, whole)]
    return found + [f"metrics of step {step}" for step in sorted(logs[1]) if logs[0].get(step) != logs[1][step]]


def _final_state(run: Run, experiment: Experiment) -> TrainState:
    layout = assemble.state_layout(experiment, make_mesh(1, 1, jax.devices()[:1]))
    with Checkpoints(run.workdir, read_only=True) as checkpoints:
        return jax.device_get(checkpoints.restore(experiment.total_steps, layout))


def _losses(run: Run) -> dict[int, dict[str, float]]:
    """Step -> its losses, without what depends on the machine."""
    return {
        line["step"]: {name: value for name, value in line.items() if name == "loss" or "/L_" in name}
        for line in read_history(run.workdir)
        if line["kind"] == "train"
    }


def change_devices(run: Run, whole: Run, steps: int) -> tuple[Row, float]:
    """A few steps on each number of devices; the row, and the largest relative difference of a loss."""
    row = Row()
    for devices in DEVICES:
        row.tries += 1
        try:
            life = run.start(devices=devices)
            run.until_steps(life, steps)
            if life.end(signal.SIGTERM) not in (128 + signal.SIGTERM, 0):
                raise Failure(f"exit code {life.process.returncode} on {devices} devices: {life.text()[-300:]}")
            row.survived += 1
        except Failure as failure:
            row.problems.append(str(failure))
    ours, theirs = _losses(run), _losses(whole)
    row.most_lost = 0 if run.starts() == sorted(set(run.starts())) else None
    worst = max(abs(ours[s][n] - theirs[s][n]) / max(abs(theirs[s][n]), 1e-6) for s in ours for n in ours[s])
    return row, worst


def table(rows: Mapping[str, Row]) -> Table:
    """Fault, tries, survived, most steps lost."""
    shown = Table("fault", "tries", "survived", "most steps lost")
    for name, row in rows.items():
        lost = "-" if row.most_lost is None else str(row.most_lost)
        shown.add_row(name, str(row.tries), str(row.survived), lost)
    return shown
