"""Runs of a grid that end at once: a script that writes what a training writes, and files as one leaves them."""

from __future__ import annotations

import json
import sys
from collections.abc import Sequence
from pathlib import Path

from larvseg_jax.cli import Flags
from larvseg_jax.config import from_config
from larvseg_jax.grid.description import Grid, Row, Table
from larvseg_jax.grid.plan import Job, Plan, plan

TINY = "tests/tiny.py"
SCRIPT = Path(__file__).with_name("fake_training.py")


def grid(*names: str, seeds: Sequence[int] = (0, 1), **changes) -> Grid:
    """One table with a row for each name; the first is the reference."""
    rows = tuple(Row(name, TINY, {"log_every": 2 + place}) for place, name in enumerate(names))
    return Grid((Table("t", "A title", rows, reference=names[0], **changes),), tuple(seeds))


def planned(out: Path, *names: str, seeds: Sequence[int] = (0, 1), **changes) -> Plan:
    return plan(grid(*names, seeds=seeds, **changes), out)


def command(*fails: str):
    """What trains a job here: a process that needs no time. Rows that are named fail, wait or go wrong otherwise."""
    how = dict(text.split(":") for text in fails)

    def of(job: Job) -> list[str]:
        job.folder.mkdir(parents=True, exist_ok=True)
        (job.folder / "config.json").write_text(json.dumps(settings(job)))
        words = [job.folder, job.total_steps, how.get(job.row.name, "end")]
        return [sys.executable, "-S", "-E", str(SCRIPT), *map(str, words)]

    return of


def settings(job: Job) -> dict:
    """The config of a job, as its training writes it."""
    flags = Flags("train", list(job.flags))
    flags.config("x", required=True)
    return dict(from_config(flags.parse().config).settings)


def finish(job: Job, commit: str = "abc123", time: str = "2026-11-27T01:02:03+0000", **scores: float | None) -> None:
    """Files of a training that has ended with these scores."""
    job.folder.mkdir(parents=True)
    (job.folder / "config.json").write_text(json.dumps(settings(job)))
    start = {"time": time, "event": "started", "step": 0, "details": [], "commit": commit}
    (job.folder / "history.jsonl").write_text(json.dumps(start | {"devices": "1 × H100 (gpu)"}) + "\n")
    early, late = (
        {"step": step, "kind": "eval", "name": "val", **{n: v and factor * v for n, v in scores.items()}}
        for step, factor in ((6, 0.5), (12, 1.0))
    )
    (job.folder / "metrics.jsonl").write_text("".join(json.dumps(line) + "\n" for line in (early, late)))
    (job.folder / "report.html").write_text("<html>")
