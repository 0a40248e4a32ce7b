"""The evaluation of a run, compiled once and used at every checkpoint."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from jax.sharding import Mesh
from jaxtyping import Int32, PyTree

from larvseg_jax.config import Experiment
from larvseg_jax.data import open_eval_source
from larvseg_jax.evaluation import EvalSettings, evaluate
from larvseg_jax.gallery import choose_photos
from larvseg_jax.inference import make_patch_logits
from larvseg_jax.metrics import Summary
from larvseg_jax.models.segmenter import make_model


class Evaluation(NamedTuple):
    """The scores, and the label maps of the gallery's photos by their numbers."""

    summary: Summary
    label_maps: dict[int, Int32[np.ndarray, "_h _w"]]


class Evaluator:
    """Parameters in, scores on the evaluation photos out."""

    def __init__(self, run: Experiment, mesh: Mesh) -> None:
        self._vocabulary, self._splits = run.vocabulary, run.splits()
        self.source, self.label_set = open_eval_source(run)
        evaluated = min(run.eval.limit or len(self.source), len(self.source))
        self._gallery = choose_photos(self.source, evaluated, self.label_set, run.vocabulary.novel, run.gallery)
        self._patch_logits = make_patch_logits(make_model(run, mesh), self.label_set, mesh)
        self.settings = EvalSettings(
            batch=_windows_per_call(run, mesh),
            scale=run.eval.scale,
            window=run.eval.window,
            stride=run.eval.stride,
            resize=run.eval.resize,
            class_block=run.eval.class_block,
            limit=run.eval.limit,
        )

    def __call__(self, params: PyTree) -> Evaluation:
        """Scores the parameters."""
        summary, label_maps = evaluate(
            lambda windows: self._patch_logits(params, windows),
            self.source,
            self.label_set,
            self._vocabulary,
            self.settings,
            splits=self._splits,
            keep=self._gallery,
        )
        return Evaluation(summary, label_maps)


def _windows_per_call(run: Experiment, mesh: Mesh) -> int:
    """As many windows as a training step has pictures of its largest stream, rounded up to the mesh."""
    largest = max(stream.batch_size for stream in run.streams.values())
    return largest + -largest % mesh.shape["data"]
