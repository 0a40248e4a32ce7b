"""LSeg (Li et al., ICLR 2022): pixels are classified by frozen text vectors, so that classes are known by name."""

from __future__ import annotations

import dataclasses

from larvseg_jax.methods.lseg.method import LSeg
from larvseg_jax.methods.lseg.options import Options
from larvseg_jax.methods.method import Method, Task


@dataclasses.dataclass(frozen=True)
class Config(Options):
    """The options, and what they make."""

    def make(self, task: Task) -> Method:
        """LSeg for a task; UserError where the file of text vectors lacks a class."""
        return LSeg(self, task)
