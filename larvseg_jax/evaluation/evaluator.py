"""An evaluation of a run, compiled once and used at every checkpoint."""

from __future__ import annotations

import functools
from collections.abc import Callable, Collection, Sequence
from typing import NamedTuple

import jax
import numpy as np
from jax.sharding import Mesh, NamedSharding
from jaxtyping import Int32, PyTree

from data_pipelines.examples import Source
from larvseg_jax.devices.mesh import WHOLE, batch_sharding
from larvseg_jax.evaluation.config import EvalConfig
from larvseg_jax.evaluation.metrics import Summary
from larvseg_jax.evaluation.scoring import evaluate
from larvseg_jax.methods.method import Dense
from larvseg_jax.vocabulary import LabelSet, Vocabulary
from larvseg_jax.vocabulary.base_novel import BaseNovel


class Evaluation(NamedTuple):
    """The scores, and the label maps of the photos that were to be kept, by their numbers."""

    summary: Summary
    label_maps: dict[int, Int32[np.ndarray, "_h _w"]]


class Evaluator:
    """Parameters and memory in, scores on the evaluation's photos out.

    Attributes:
      config: how photos are segmented.
      source: the photos with their masks.
      label_set: the classes that compete.
      keep: numbers of the photos whose label maps are kept, e.g. for a report.
    """

    def __init__(
        self,
        config: EvalConfig,
        source: Source,
        label_set: LabelSet,
        vocabulary: Vocabulary,
        definitions: Sequence[BaseNovel],
        scorer: Dense,
        mesh: Mesh,
        keep: Collection[int] = (),
    ) -> None:
        self.config, self.source, self.label_set, self.keep = config, source, label_set, keep
        self._vocabulary, self._definitions = vocabulary, definitions
        self._patch_scores = make_patch_scores(scorer, mesh)
        self._batch = config.batch_size + -config.batch_size % mesh.shape["data"]

    @property
    def photos(self) -> int:
        """How many photos are evaluated: the first of the source."""
        return min(self.config.limit or len(self.source), len(self.source))

    def __call__(self, params: PyTree, memory: PyTree) -> Evaluation:
        """Scores the parameters."""
        summary, label_maps = evaluate(
            lambda windows: self._patch_scores(params, memory, windows),
            self.source,
            self.label_set,
            self._vocabulary,
            self.config,
            batch=self._batch,
            definitions=self._definitions,
            keep=self.keep,
        )
        return Evaluation(summary, label_maps)


def make_patch_scores(scorer: Dense, mesh: Mesh) -> Callable[[PyTree, PyTree, np.ndarray], jax.Array]:
    """(params, memory, normalised pictures (b, H, W, 3)) -> scores on the patch grid (b, h, w, n), float32.

    Only the classes of the scorer compete (method 10). b must be a multiple of the mesh's `data`; the scores come back
    whole on every device. Of several processes each passes all pictures and gets all scores; the work in between is
    split over the devices of all.
    """
    scores = functools.partial(jax.jit, out_shardings=NamedSharding(mesh, WHOLE))(scorer.scores)

    def place(images: np.ndarray) -> jax.Array:
        return jax.make_array_from_callback(images.shape, batch_sharding(mesh), images.__getitem__)

    return lambda params, memory, images: scores(params, memory, place(images))
