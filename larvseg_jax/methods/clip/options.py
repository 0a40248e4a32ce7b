"""The options of CLIP, and of what a stream teaches it."""

from __future__ import annotations

import dataclasses
from typing import Literal

from larvseg_jax.errors import UserError
from larvseg_jax.models.dense_clip import DenseFeatures, KeySmoothing
from larvseg_jax.models.text import TextConfig
from larvseg_jax.options import Count
from larvseg_jax.text.prompts import templates
from larvseg_jax.text.tokenizer import TokenizerConfig


@dataclasses.dataclass(frozen=True)
class CaptionLoss:
    """What a stream of captions adds to the loss: weight * L_contrastive."""

    weight: float = 1.0


@dataclasses.dataclass(frozen=True)
class Options:
    """The section `method` of a run that trains or evaluates CLIP. A backbone of it has `model.mlp` of its weights."""

    name: Literal["clip"] = "clip"
    width: Count = 512  # of the space that pictures and texts share
    text: TextConfig = TextConfig()
    tokenizer: TokenizerConfig = TokenizerConfig()  # as the streams'
    templates: str = "vild_14"  # text/prompts.py: sentences that name a class; or one with {} in the name's place
    features: DenseFeatures = "value"  # of patches: MaskCLIP's paper; value_block: its code for a ViT; tokens: as it is
    # The image tower of dense features as MaskCLIP's code runs it, and not as it was trained: exact GELU, epsilon 1e-6,
    # pixels by ImageNet's mean and std. For its published numbers alone.
    original_quirks: bool = False
    # Classes whose best probability in a picture (a window) is below this win nowhere in it; 0.0: none. MaskCLIP: 0.5
    prompt_denoising: float = 0.0
    key_smoothing: KeySmoothing = "off"  # patches take part in the votes of those with like keys (dense_clip.py)
    smooth_below: float = 1.0  # only patches whose best probability is below this are smoothed; 1.0: all

    def __post_init__(self) -> None:
        templates(self.templates)
        for name in ("prompt_denoising", "smooth_below"):
            if not 0 <= getattr(self, name) <= 1:
                raise UserError(f"{name} is {getattr(self, name)}: give a probability, 0 to 1")

    def loss_options(self, view: type) -> type[CaptionLoss]:
        """Of a stream with such a view."""
        if getattr(view, "reads", "") == "captions":
            return CaptionLoss
        raise UserError(f"CLIP learns from captions; a stream with {view.__name__} teaches it nothing")
