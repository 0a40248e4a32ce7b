"""LarvSeg (Yu et al., PRCV 2024): base classes from masks, novel ones from tags, attention from a memory bank."""

from __future__ import annotations

import dataclasses

from larvseg_jax.methods.larvseg.method import LarvSeg
from larvseg_jax.methods.larvseg.options import Options
from larvseg_jax.methods.method import Method, Task


@dataclasses.dataclass(frozen=True)
class Config(Options):
    """The options, and what they make."""

    def make(self, task: Task) -> Method:
        """LarvSeg for a task; UserError where the attention's top-k exceeds the patches of a crop."""
        return LarvSeg(self, task)
