"""CEL (Zhao et al.): masks and classes of queries are matched apart; absent classes push no query to a background."""

from __future__ import annotations

import dataclasses

from larvseg_jax.methods.cel.method import Cel
from larvseg_jax.methods.cel.options import Options
from larvseg_jax.methods.method import Method, Task


@dataclasses.dataclass(frozen=True)
class Config(Options):
    """The options, and what they make."""

    def make(self, task: Task) -> Method:
        """CEL for a task; UserError where the file of text vectors lacks a class."""
        return Cel(self, task)
