"""The options of LSeg, and of what a stream teaches it."""

from __future__ import annotations

import dataclasses
from typing import Literal

from data_pipelines.views import MaskView
from larvseg_jax.errors import UserError
from larvseg_jax.text.vectors import TextClasses


@dataclasses.dataclass(frozen=True)
class MaskLoss:
    """What a stream of masks adds to the loss: weight * L_seg."""

    weight: float = 1.0


@dataclasses.dataclass(frozen=True)
class Options:
    """The section `method` of a run that trains LSeg."""

    text: TextClasses  # the class matrix
    name: Literal["lseg"] = "lseg"
    temperature: float = 0.07  # of the cosines; Original: not trained either

    def __post_init__(self) -> None:
        if not self.temperature > 0:
            raise UserError(f"temperature is {self.temperature}: use a number above 0, such as 0.07")
        if not self.text.width:
            raise UserError("LSeg classifies by text vectors: give method.text.vectors and .width (docs/lseg.md)")

    def loss_options(self, view: type) -> type[MaskLoss]:
        """Of a stream with such a view."""
        if not issubclass(view, MaskView):
            raise UserError(
                f"LSeg learns from masks; a stream with {view.__name__} teaches it nothing: take larvseg with "
                "method.text, whose tags are classified by text vectors, too"
            )
        return MaskLoss
