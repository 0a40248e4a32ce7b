"""A slice of the drill: a run that is killed, robbed and started again ends bit-identical to one left alone."""

import random

import pytest

from larvseg_jax.config import from_config
from larvseg_jax.weights.checkpoint import Checkpoints
from tests import tiny
from tests.drill.drill import Row, differences, disturb, plan
from tests.drill.faults import FAULTS
from tests.drill.supervised import Run

STEPS = 40
SLICE = [
    "kill -9 while a checkpoint is written",
    "clock jumps",
]


@pytest.mark.slow
def test_a_run_survives_a_slice_of_the_drill(tmp_path):
    data = tiny.write_data(tmp_path / "data")
    config = tiny.get_config()
    config.data_root, config.total_steps, config.checkpoint.every = str(data.parent), STEPS, 8
    flags = ["--config=tests/tiny.py", f"--config.data_root={data.parent}", f"--config.total_steps={STEPS}"]
    flags += ["--config.checkpoint.every=8", "--config.evals.val.every=1000", "--config.gallery=0"]
    photos = sorted((data / "images").iterdir())
    whole, run = (Run(tmp_path, flags, photos, workdir) for workdir in ("whole", "run"))
    assert whole.start().end() == 0, whole.step()
    rows = disturb(run, SLICE, seed=0)
    for name in (*SLICE, "the end"):
        assert (rows[name].tries, rows[name].survived, rows[name].problems) == (1, 1, [])
        assert (rows[name].most_lost or 0) <= 24  # the newest two were not whole, and some steps
    assert differences(run, whole, from_config(config)) == []
    assert (run.workdir / "report.html").stat().st_size > 10_000
    with Checkpoints(run.workdir, read_only=True) as checkpoints:
        assert checkpoints.steps()[-1] == STEPS


def test_a_plan_has_every_fault_and_so_many_kills():
    names = plan(50, 0)
    assert sum(name.startswith("kill -9") for name in names) >= 50
    assert set(names) == set(FAULTS)
    assert plan(50, 0) == names != plan(50, 1)


def test_what_a_fault_costs_is_seen_by_the_next_life(monkeypatch):
    class Fake:
        """Lives that begin at the first number and are ended at the second."""

        lives = [(0, 30), (20, 20), (20, 25), (25, 60), (40, 41)]

        def __init__(self):
            self.lived = 0

        def starts(self):
            return [begun for begun, _ in self.lives[: self.lived]]

        def step(self):
            return self.lives[self.lived - 1][1] if self.lived != 2 else 30  # the log of the life before

        def log_time(self):
            return self.lived if self.lived != 2 else 1

    def live(run, rng):
        run.lived += 1

    for name in ("SIGTERM", "two runs on one folder", "SIGINT", "clock jumps"):
        monkeypatch.setitem(FAULTS, name, (live, 1))
    monkeypatch.setitem(FAULTS, "full disk at the start", (lambda run, rng: random.random(), 1))  # never begins
    monkeypatch.setattr("tests.drill.drill._end", lambda run: live(run, None))
    names = ["SIGTERM", "full disk at the start", "two runs on one folder", "SIGINT", "clock jumps"]
    rows = disturb(Fake(), names, 0)
    lost = {name: row.most_lost for name, row in rows.items() if row.tries}
    assert lost == dict(zip([*names, "the end"], [10, None, 0, 0, 20, None], strict=True))
    assert rows["kill -9 in start-up"] == Row()
