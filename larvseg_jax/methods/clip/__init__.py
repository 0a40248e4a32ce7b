"""CLIP (Radford et al., ICML 2021), and classes of pixels out of it without training (MaskCLIP, ECCV 2022)."""

from __future__ import annotations

import dataclasses

from larvseg_jax.methods.clip.method import ClipMethod
from larvseg_jax.methods.clip.options import Options
from larvseg_jax.methods.method import Method, Task


@dataclasses.dataclass(frozen=True)
class Config(Options):
    """The options, and what they make."""

    def make(self, task: Task) -> Method:
        """CLIP for a task; UserError where its streams have another tokenizer, or the backbone is too small."""
        return ClipMethod(self, task)
