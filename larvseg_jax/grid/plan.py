"""From a grid to the trainings it needs: one for each config and seed, however many rows ask for it."""

from __future__ import annotations

import dataclasses
import hashlib
import json
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from larvseg_jax.cli import Flags
from larvseg_jax.config import from_config
from larvseg_jax.errors import UserError
from larvseg_jax.grid.description import Grid, Row

_NOT_THE_RESULT = ("name", "workdir", "data_root", "seed")
"""Options that do not say what is trained: where it lies, and what is counted apart."""


@dataclasses.dataclass(frozen=True)
class Job:
    """One training of a grid.

    Attributes:
      folder: of the run.
      row: the first row that asks for it.
      seed: of the run.
      digest: of its config (`digest_of`).
      flags: what train.py is called with.
      total_steps: after which it has ended.
      evaluation: name of the evaluation whose scores are shown: the first by name.
    """

    folder: Path
    row: Row
    seed: int
    digest: str
    flags: tuple[str, ...]
    total_steps: int
    evaluation: str

    def __str__(self) -> str:
        return f"{self.folder.name} ({self.row.name})"


@dataclasses.dataclass(frozen=True)
class Plan:
    """The trainings of a grid.

    Attributes:
      grid: what they are for, with the seeds that are asked for.
      jobs: (table, row, seed) -> training; rows of the same config share theirs.
    """

    grid: Grid
    jobs: Mapping[tuple[str, str, int], Job]

    def needed(self, only: str | None = None) -> list[Job]:
        """The trainings of all tables, or of one, each once: all rows with the first seed, then with the next."""
        found: dict[Path, Job] = {}
        for seed in self.grid.seeds:
            for table in self.grid.tables:
                for row in table.rows if only in (None, table.name) else ():
                    job = self.jobs[table.name, row.name, seed]
                    found.setdefault(job.folder, job)
        return list(found.values())


def plan(grid: Grid, out: Path) -> Plan:
    """Resolves the config of every row, as train.py would. UserError names the row whose config cannot be."""
    jobs: dict[tuple[str, str, int], Job] = {}
    same: dict[str, Row] = {}
    for table in grid.tables:
        for row in table.rows:
            try:
                digest, steps, evaluation = _resolved(row)
            except UserError as error:
                raise UserError(f"table {table.name}, row {row.name!r}: {error}") from error
            first = same.setdefault(digest, row)
            for seed in grid.seeds:
                name = f"{_stem(first)}-{digest}-seed{seed}"
                own = (f"--config.seed={seed}", f"--config.name={name}", f"--config.workdir={out / name}")
                flags = (*config_flags(first), *own)
                jobs[table.name, row.name, seed] = Job(out / name, first, seed, digest, flags, steps, evaluation)
    return Plan(grid, jobs)


def config_flags(row: Row) -> tuple[str, ...]:
    """The flags of train.py that make the config of a row."""
    return (f"--config={row.config}", *(f"--config.{name}={value}" for name, value in row.options.items()))


def digest_of(settings: Mapping[str, Any]) -> str:
    """Eight hexadecimal digits that are the same for configs that train the same, but for their seeds."""
    kept = {name: value for name, value in settings.items() if name not in _NOT_THE_RESULT}
    return hashlib.sha256(json.dumps(kept, sort_keys=True).encode()).hexdigest()[:8]


def _resolved(row: Row) -> tuple[str, int, str]:
    """Digest, steps and the name of the first evaluation."""
    flags = Flags("train", config_flags(row))
    flags.config("Of a row.", required=True)
    run = from_config(flags.parse(takes_rest=False).config)
    if not run.evals:
        raise UserError(f"{row.config} has no evaluation: add one to config.evals")
    return digest_of(run.settings), run.total_steps, min(run.evals)


def _stem(row: Row) -> str:
    return re.sub(r"[^\w-]", "_", Path(row.config.partition(":")[0]).stem)
