"""What a run of a grid says of itself: its scores, and of which code and on what machine they are."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Mapping

from larvseg_jax.errors import UserError
from larvseg_jax.grid.plan import Job, digest_of
from larvseg_jax.report.metric_log import read_history
from larvseg_jax.training.history import Origin, origin


@dataclasses.dataclass(frozen=True)
class Result:
    """A finished run.

    Attributes:
      scores: of the last step, as fractions of one, by their names in metrics.jsonl.
      steps: after how many steps.
      origin: when, where and by which code it was trained.
    """

    scores: Mapping[str, float]
    steps: int
    origin: Origin


def read_result(job: Job) -> Result | None:
    """The result of a run; None if it has not ended. UserError if its folder holds a run of another config."""
    if not (job.folder / "report.html").is_file():  # the last thing that a run writes
        return None
    evaluated = [
        line
        for line in read_history(job.folder)
        if (line["kind"], line["step"], line.get("name")) == ("eval", job.total_steps, job.evaluation)
    ]
    if not evaluated:
        return None
    _check_config(job)
    last = {name: value for name, value in evaluated[-1].items() if isinstance(value, float)}
    return Result(last, job.total_steps, origin(job.folder))


def steps_taken(job: Job) -> int:
    """The last step that a run has logged; 0 if none."""
    return max((line["step"] for line in read_history(job.folder) if line["kind"] == "train"), default=0)


def _check_config(job: Job) -> None:
    path = job.folder / "config.json"
    try:
        digest = digest_of(json.loads(path.read_text("utf-8")))
    except (OSError, ValueError, AttributeError) as error:
        raise UserError(
            f"{path} cannot be read ({type(error).__name__}): move the run away, to train it anew"
        ) from error
    if digest != job.digest:
        raise UserError(f"{path} is of another config than {job.digest}: move the run away, to train it anew")
