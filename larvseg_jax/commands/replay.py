"""Repeats the step at which a run diverged: python -m larvseg_jax replay runs/x/diverged/step_1234.json.

The file is named by the run when it stops. Shows the losses, the norm of each layer's gradient and the photos.
"""

from __future__ import annotations

from pathlib import Path

from larvseg_jax.cli import Flags, Given
from larvseg_jax.errors import UserError

TAKES_REST = True  # FILE


def define(flags: Flags) -> None:
    """It has no flags."""


def main(given: Given) -> None:
    """Repeats the step of FILE."""
    if len(given.rest) != 1:
        raise UserError("give one file: python -m larvseg_jax replay runs/x/diverged/step_1234.json")
    from larvseg_jax.diverged import replay

    replay(Path(given.rest[0]))
