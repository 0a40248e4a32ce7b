"""Scores as the vocabulary grows: nested label sets, evaluated in one pass over the photos.

The network runs once per window; what differs from label set to label set are the class vectors, the scale of the
features and the search. Pixels count that show a class which competes: in a vocabulary smaller than the scored
classes, only the photos that show one of it; "other" never does.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import Mesh
from jaxtyping import Int32, PyTree

from data_pipelines.examples import Source
from larvseg_jax.console import track
from larvseg_jax.errors import UserError
from larvseg_jax.evaluation.config import EvalConfig
from larvseg_jax.evaluation.evaluator import gathered, make_patch_values
from larvseg_jax.evaluation.metrics import SegmentationCounts, Summary
from larvseg_jax.evaluation.open_scores import OpenCounts
from larvseg_jax.evaluation.path_similarity import PathSimilarity
from larvseg_jax.evaluation.photos import photo_values, photos_of
from larvseg_jax.evaluation.search import Search
from larvseg_jax.methods.method import Linear, Method
from larvseg_jax.vocabulary import IGNORE_LABEL, LabelSet, Vocabulary


class Nested(NamedTuple):
    """One vocabulary of the curve.

    Attributes:
      label_set: its classes; the scored ones come first.
      column: of each column of the label set that it was drawn from, its column here; IGNORE_LABEL if it has none
        here or is no scored class.
    """

    label_set: LabelSet
    column: Int32[np.ndarray, " whole"]


class Point(NamedTuple):
    """Scores of one vocabulary: how many classes compete, how many of them are scored, and how well."""

    classes: int
    scored: int
    summary: Summary


def nested_label_sets(whole: LabelSet, sizes: Sequence[int], seed: int) -> list[Nested]:
    """Vocabularies of these sizes, each a part of the next: scored classes in a drawn order, then rivals in another.

    Args:
      whole: a label set with rivals (`Vocabulary.with_rivals`).
      sizes: how many classes compete in each; those beyond all there are become all.
      seed: of the drawing.
    """
    rng = np.random.default_rng(seed)
    own = rng.permutation(whole.scored - 1)  # without OTHER
    order = np.concatenate([own, whole.scored + rng.permutation(whole.rivals)])
    nested = []
    for size in sorted({min(size, len(order)) for size in sizes}):
        chosen = order[:size]
        column = np.full(len(whole), IGNORE_LABEL, np.int32)
        scored = min(size, len(own))
        column[chosen[:scored]] = np.arange(scored, dtype=np.int32)
        names = tuple(whole.names[i] for i in chosen)
        label_set = LabelSet(names, whole.rows[chosen], whole.multiplicity[chosen], {}, size - scored)
        nested.append(Nested(label_set, column))
    return nested


def vocabulary_curve(
    method: Method,
    params: PyTree,
    memory: PyTree,
    nested: Sequence[Nested],
    source: Source,
    vocabulary: Vocabulary,
    config: EvalConfig,
    mesh: Mesh,
    similarities: Sequence[PathSimilarity] | None = None,
) -> list[Point]:
    """Scores of every vocabulary on the same photos.

    Args:
      method, params, memory: the trained model.
      nested: see `nested_label_sets`.
      source: photos labelled with the columns of the label set that these were drawn from.
      vocabulary: says which classes are base and novel.
      config: how photos are segmented.
      mesh: where the network runs.
      similarities: of the columns of each vocabulary, if the scores by them are wanted, too (open_scores.py).

    Raises:
      UserError: a method without a `Linear` scorer; features that are not finite, with the photo's id.
    """
    scorers = []
    for of in nested:
        scorer = method.scorer(of.label_set)
        if not isinstance(scorer, Linear):
            raise UserError(
                "the scores of this method are no products of features and class vectors: evaluate it alone"
            )
        scorers.append(scorer)
    label_maps = [_LabelMaps(scorer, params, memory, config, mesh) for scorer in scorers]
    counts = [SegmentationCounts.zeros(of.label_set.scored + 1) for of in nested]
    open_counts = [OpenCounts.zeros(of.label_set.scored) for of in nested]
    # Of a linear scorer the first step is the same whichever classes compete.
    embed = make_patch_values(scorers[0].embed, mesh)
    batch = config.batch_size + -config.batch_size % mesh.shape["data"]
    total = min(config.limit or len(source), len(source))
    photos = photo_values(
        lambda windows: embed(params, memory, windows), photos_of(source, range(total), config), batch
    )
    for photo, patches in track(photos, total, "evaluation"):
        if not np.isfinite(patches).all():
            raise UserError(f"features of photo {photo.id!r} are not finite: the weights have diverged")
        for i, of in enumerate(nested):
            label = np.where(photo.label == IGNORE_LABEL, IGNORE_LABEL, of.column[photo.label]).astype(np.int32)
            if (label == IGNORE_LABEL).all():
                continue
            prediction = label_maps[i](patches, photo.test_size, photo.label.shape)
            counts[i] = counts[i].add(np.minimum(prediction, np.int32(of.label_set.scored)), label)
            if similarities:
                open_counts[i] = open_counts[i].add(prediction, label, similarities[i])
    points = [_point(of, found, vocabulary) for of, found in zip(nested, counts, strict=True)]
    return [_with_open(p, of) for p, of in zip(points, open_counts, strict=True)] if similarities else points


class _LabelMaps:
    """Patches of the network in, label maps over one vocabulary out."""

    def __init__(self, scorer: Linear, params: PyTree, memory: PyTree, config: EvalConfig, mesh: Mesh) -> None:
        vectors = gathered(scorer.vectors, mesh)(params, memory)
        self._search = Search(vectors, config)
        self._vectors = self._search.vectors
        self._scale = jax.jit(scorer.scale)

    def __call__(self, patches: np.ndarray, test_size: tuple[int, int], size: tuple[int, int]) -> np.ndarray:
        return self._search(np.asarray(self._scale(jnp.asarray(patches), self._vectors)), test_size, size)


def _with_open(point: Point, counts: OpenCounts) -> Point:
    return point._replace(summary=dataclasses.replace(point.summary, open=counts.scores(point.summary.groups)))


def _point(of: Nested, counts: SegmentationCounts, vocabulary: Vocabulary) -> Point:
    """Without the last column, of what rivals have won: it is nobody's intersection, and no class."""
    scored = of.label_set.scored
    own = SegmentationCounts(*(getattr(counts, field.name)[:scored] for field in dataclasses.fields(counts)))
    summary = own.summary(of.label_set.names[:scored], vocabulary)
    return Point(int(of.label_set.multiplicity.sum()), scored, summary)
