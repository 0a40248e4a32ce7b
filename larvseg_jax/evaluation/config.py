"""The options of an evaluation: one description, used by training, evaluate.py, the predictor and the report."""

from __future__ import annotations

import dataclasses
import math
from typing import Literal

from data_pipelines.sources import SourceConfig
from larvseg_jax.errors import UserError
from larvseg_jax.evaluation.windows import Windows
from larvseg_jax.options import Count, CountOrNone


@dataclasses.dataclass(frozen=True)
class EvalConfig:
    """One of the section `evals`: which photos are segmented, how, and which classes compete."""

    source: SourceConfig = SourceConfig(split="val")
    classes: tuple[str, ...] = ()  # classes that compete; () = the whole vocabulary
    class_list: str = ""  # instead of classes: one of class_lists.lists, or one whose synsets are all in these
    # One of class_lists.lists, whose other classes compete, too: what they win counts as "other", in no mean.
    rivals: str = ""
    base_novel: tuple[str, ...] = ()  # other definitions of base and novel to report: "processed", "split" for ADE20K
    scale: tuple[int, int] = (2048, 512)  # (long side, short side) limits of the resized photo, pixels
    window: Count = 512  # side of the sliding window, pixels at test resolution
    stride: Count = 512  # of the sliding window, pixels
    batch_size: Count = 12  # windows per call of the network, raised to what the mesh divides
    limit: CountOrNone = 0  # only the first so many photos; 0 = all
    # Added to the scores of novel classes before the highest wins (calibrated stacking): below 0 they win less often.
    novel_offset: float = 0.0
    choose_novel_offset: bool = False  # anew at every evaluation, by the photos' base masks (novel_offset.py)
    # What is resized to the photo's own size: logits (finer), or labels (Original: the published numbers).
    resize: Literal["logits", "labels"] = "logits"
    every: Count = 8000  # steps of training between two evaluations; the last step is always evaluated

    def __post_init__(self) -> None:
        if not math.isfinite(self.novel_offset):
            raise UserError(f"novel_offset is {self.novel_offset}: give a number, 0.0 to leave the scores as they are")
        if self.choose_novel_offset and self.novel_offset:
            raise UserError(f"novel_offset is {self.novel_offset}, and choose_novel_offset is set: keep one of the two")
        _ = self.windows

    @property
    def windows(self) -> Windows:
        """How a photo becomes windows; checked."""
        return Windows(self.scale, self.window, self.stride)
