"""ViL-Seg (Liu et al., ECCV 2022): trained on captions alone, it finds clusters and names them."""

from __future__ import annotations

import dataclasses

from larvseg_jax.methods.method import Method, Task
from larvseg_jax.methods.vilseg.method import ViLSeg
from larvseg_jax.methods.vilseg.options import Options


@dataclasses.dataclass(frozen=True)
class Config(Options):
    """The options, and what they make."""

    def make(self, task: Task) -> Method:
        """ViL-Seg for a task; UserError where a stream lacks what a loss needs."""
        return ViLSeg(self, task)
