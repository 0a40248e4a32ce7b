"""The options of LarvSeg, and of what a stream teaches it."""

from __future__ import annotations

import dataclasses
from typing import Literal

from data_pipelines.views import VIEWS, MaskView, TagView
from larvseg_jax.errors import UserError
from larvseg_jax.methods.larvseg.ca_classifier import CAConfig
from larvseg_jax.options import CountOrNone


@dataclasses.dataclass(frozen=True)
class MaskLoss:
    """What a stream of masks adds to the loss: weight * L_seg."""

    weight: float = 0.5  # Paper: 1. Original: gradients averaged over ranks, so 4 and 4 GPUs are 1/2 each
    sample_classes: CountOrNone = 0  # classes that take part in a step, drawn anew each time; 0 = all (Original: 100)


@dataclasses.dataclass(frozen=True)
class TagLoss(MaskLoss):
    """What a stream of tags adds to the loss: weight * (lambda_cls * L_cls + lambda_aux * L_aux)."""

    lambda_cls: float = 0.1  # weight of the image-level loss L_cls
    lambda_aux: float = 0.1  # weight of the CA-Classifier's loss L_aux; 0 switches the attention off


@dataclasses.dataclass(frozen=True)
class Options:
    """The section `method` of a run that trains LarvSeg."""

    name: Literal["larvseg"] = "larvseg"
    gamma_init: float = 1.0  # start of the logit scale; from scratch 2 and more (|logits| <= gamma * sqrt(N - 1))
    seg_loss_mean: Literal["all", "valid"] = "all"  # L_seg divided by all pixels (Original) or by the labelled ones
    ca_classifier: CAConfig = dataclasses.field(default_factory=CAConfig)

    def loss_options(self, view: type) -> type[MaskLoss]:
        """Of a stream with such a view."""
        if issubclass(view, MaskView):
            return MaskLoss
        if issubclass(view, TagView):
            return TagLoss
        kinds = {kind: of for kind, of in VIEWS.items() if issubclass(view, of)}
        raise UserError(
            f"LarvSeg learns from masks and tags: a stream of {', '.join(kinds) or view.__name__} teaches it nothing, "
            "take it out or choose a method that learns from it"
        )
