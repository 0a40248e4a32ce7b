"""The best k of very many classes at every pixel, exactly, without a pixel x class map (docs/predict.md).

Scores exist on the patch grid only, a slab of its rows at a time. The output is cut into tiles inside which the
weights of upsampling and stitching are piecewise linear in y and in x, so that the score of a class anywhere in
a tile lies below its greatest score at the tile's few corners. In every tile the classes are therefore tried
from the greatest such bound downwards, a chunk at a time, until the next bound is below the k-th best score
of every pixel: usually after some dozens of classes, in the worst case after all of them.

Letters: p x q mosaic of patches, n classes, d feature width, k classes kept; in a band (tiles side by side):
t tiles of y x x pixels, v corners and s contributing patches along an axis.
"""

from __future__ import annotations

import functools
from collections.abc import Iterable, Iterator
from concurrent import futures
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax
from jaxtyping import Array, Bool, Float, Float32, Int, Int32

from larvseg_jax.evaluation.search_memory import CHUNK, Plan, log_sum_block
from larvseg_jax.evaluation.tiles import AxisTiles
from larvseg_jax.methods.method import Vectors
from larvseg_jax.models.precision import precise_einsum
from larvseg_jax.vocabulary import IGNORE_LABEL

_TRIED = (128, 2048)  # classes sorted by their bound first; all of them only where these do not suffice
_SLACK = 2e-5  # of the bounds, relative: rounding, and weights that are linear to 1e-6 only


class TopClasses(NamedTuple):
    """The best classes of every pixel, best first; of equal scores the lowest class comes first.

    Attributes:
      scores: features . vectors + offset; -inf where fewer than k classes compete.
      labels: their numbers; IGNORE_LABEL where the score is -inf.
      log_sum: logsumexp over all classes (each counted `multiplicity` times); None unless asked for.
    """

    scores: Float32[np.ndarray, "H W k"]
    labels: Int32[np.ndarray, "H W k"]
    log_sum: Float32[np.ndarray, "H W"] | None


def centred(classes: Vectors) -> Vectors:
    """The same scores by vectors of mean zero: else bounds would be those of what all classes have in common.

    Vectors of texts have most of their length in common.
    """
    competes = (classes.multiplicity > 0).astype(classes.vectors.dtype)
    mean = precise_einsum("n,nd->d", competes, classes.vectors) / jnp.sum(competes)
    return classes._replace(vectors=classes.vectors - mean[None], common=mean)


def top_classes(
    patches: Float[Array, "p q d"] | Float[np.ndarray, "p q d"],
    classes: Vectors,
    rows: AxisTiles,
    columns: AxisTiles,
    plan: Plan,
) -> TopClasses:
    """The best `plan.k` classes at every output pixel.

    Args:
      patches: mosaic of the scorer's features (of windows, as `sliding_window.mosaic` lays them); of NumPy it needs no
        program for every number of rows.
      classes: the competing classes.
      rows, columns: `tiles.axis_tiles` of the two matrices of `sliding_window.stitch_matrix`.
      plan: how many rows of patches are scored at a time, and by how many threads (`plan_memory`).
    """
    height, width = int(rows.last[-1]) + 1, int(columns.last[-1]) + 1
    scores = np.empty((height, width, plan.k), np.float32)
    labels = np.empty((height, width, plan.k), np.int32)
    log_sum = np.empty((height, width), np.float32) if plan.log_sum else None
    tile = np.repeat(np.arange(len(columns.first)), columns.last - columns.first + 1)
    column = np.arange(width) - columns.first[tile]
    on_device = jax.tree.map(jnp.asarray, columns)

    def band(slab: Array, shared: Array | None, local: np.ndarray, i: int) -> None:
        sources, weights = jnp.asarray(local), jnp.asarray(rows.weights[i])
        best = _best_of_band(
            slab, classes.multiplicity, sources, weights, jnp.asarray(rows.corners[i]), on_device, plan.k
        )
        into = slice(rows.first[i], rows.last[i] + 1)
        count = rows.last[i] - rows.first[i] + 1
        common = 0 if shared is None else _shared_of_band(shared, sources, weights, on_device)
        scores[into] = np.asarray(best[0] + common)[tile, :, :count, column].transpose(2, 0, 1) + np.asarray(
            classes.offset
        )
        labels[into] = np.asarray(best[1])[tile, :, :count, column].transpose(2, 0, 1)
        if log_sum is not None:
            total = _log_sum_of_band(slab, classes.multiplicity, sources, weights, on_device, best[0][:, 0])[:, None]
            log_sum[into] = np.asarray(total + common)[tile, 0, :count, column].T + np.asarray(classes.offset)

    with futures.ThreadPoolExecutor(plan.threads) as pool:
        for first, last, needed in _slabs(rows, plan.slab_rows):
            slab = _slab_scores(patches[needed], classes.vectors)
            shared = None if classes.common is None else _slab_scores(patches[needed], classes.common[None])
            local = np.searchsorted(needed, rows.sources[first:last]).astype(np.int32)
            list(pool.map(functools.partial(band, slab, shared), local, range(first, last)))
            del slab
    return TopClasses(scores, labels, log_sum)


def _slabs(rows: AxisTiles, most: int) -> Iterator[tuple[int, int, np.ndarray]]:
    """Runs of bands (first, last + 1) that need at most so many patch rows, and these rows, always as many."""
    first, needed = 0, np.unique(rows.sources[0])
    for i, sources in enumerate(rows.sources[1:], start=1):
        more = np.union1d(needed, sources)
        if len(more) > most:
            yield first, i, np.pad(needed, (0, most - len(needed)), mode="edge")
            first, more = i, np.unique(sources)
        needed = more
    yield first, len(rows.sources), np.pad(needed, (0, most - len(needed)), mode="edge")


@jax.jit
def _slab_scores(patches: Float[Array, "p q d"], vectors: Float[Array, "n d"]) -> Float[Array, "p q n"]:
    return precise_einsum("pqd,nd->pqn", patches, vectors)


class _Best(NamedTuple):
    """State of the search in a band: classes tried so far, and the best of these at every pixel."""

    tried: Int[Array, ""]
    scores: Float[Array, "t k y x"]
    labels: Int[Array, "t k y x"]


@functools.partial(jax.jit, static_argnums=6)
def _best_of_band(
    slab: Float[Array, "p q n"],
    multiplicity: Float[Array, " n"],
    sources: Int[Array, " s"],
    weights: Float[Array, "y s"],
    corners: Float[Array, "v s"],
    columns: AxisTiles,
    k: int,
) -> tuple[Float[Array, "t k y x"], Int[Array, "t k y x"]]:
    rows = slab[sources]
    bounds = jnp.where(multiplicity[None] > 0, _bounds(rows, corners, columns), -jnp.inf)
    shape = (columns.first.shape[0], k, weights.shape[0], columns.weights.shape[1])
    best = _Best(jnp.int32(0), jnp.full(shape, -jnp.inf), jnp.full(shape, IGNORE_LABEL, jnp.int32))
    n = bounds.shape[1]
    stages = sorted({min(count, n) for count in (*_TRIED, n)})
    for count in stages:
        search = functools.partial(_search, rows, weights, columns, bounds, count)
        best = search(best) if count == stages[0] else lax.cond(_beaten(best, bounds), lambda b: b, search, best)
    return best.scores, best.labels


def _bounds(rows: Float[Array, "s q n"], corners: Float[Array, "v s"], columns: AxisTiles) -> Float[Array, "t n"]:
    """No class scores higher in a tile than this: greatest along y first, then along x. No weight is negative."""
    greatest = _maximum(_total(weight[j] * rows[j] for j in range(rows.shape[0])) for weight in corners)
    patches = jnp.arange(rows.shape[1], dtype=jnp.int32)
    here = (columns.sources[:, None, :, None] == patches[None, None, None]).astype(rows.dtype)  # t 1 u q
    weights = jnp.sum(columns.corners[..., None] * here, axis=2)  # t v q
    # One product per corner, so that the sum over v is never held.
    return _maximum(precise_einsum("tq,qn->tn", weights[:, i], greatest) for i in range(weights.shape[1]))


def _maximum(maps: Iterable[Array]) -> Array:
    return functools.reduce(jnp.maximum, maps)


def _total(maps: Iterable[Array]) -> Array:
    return functools.reduce(jnp.add, maps)


def _beaten(best: _Best, bounds: Float[Array, "t n"]) -> Bool[Array, ""]:
    """Whether no class not tried yet can be among the best anywhere; `bounds` in any order."""
    kth = jnp.min(best.scores[:, -1], axis=(-2, -1))
    reach = bounds >= (kth - _slack(bounds))[:, None]
    # The classes tried are those of the greatest bounds, so a tile that more classes can reach is not done.
    return jnp.all(jnp.sum(reach & (bounds > -jnp.inf), axis=1) <= best.tried)


def _slack(bounds: Float[Array, "t n"]) -> Float[Array, " t"]:
    greatest = jnp.max(bounds, axis=1)
    return _SLACK * jnp.maximum(1.0, jnp.where(greatest > -jnp.inf, greatest, 1.0))


def _search(
    rows: Float[Array, "s q n"],
    weights: Float[Array, "y s"],
    columns: AxisTiles,
    bounds: Float[Array, "t n"],
    count: int,
    best: _Best,
) -> _Best:
    """Goes on through the `count` classes of the greatest bounds until no other can matter."""
    ordered, classes = lax.top_k(bounds, count)
    filler = -count % CHUNK
    ordered = jnp.pad(ordered, ((0, 0), (0, filler)), constant_values=-jnp.inf)
    classes = jnp.pad(classes, ((0, 0), (0, filler)))
    slack = _slack(bounds)

    def unfinished(best: _Best) -> Bool[Array, ""]:
        place = jnp.minimum(best.tried, count - 1)
        following = lax.dynamic_slice_in_dim(ordered, place, 1, axis=1)[:, 0]
        kth = jnp.min(best.scores[:, -1], axis=(-2, -1))
        open_tiles = (following >= kth - slack) & (following > -jnp.inf)
        return (best.tried < count) & jnp.any(open_tiles)

    def try_chunk(best: _Best) -> _Best:
        bound = lax.dynamic_slice_in_dim(ordered, best.tried, CHUNK, axis=1)
        chunk = lax.dynamic_slice_in_dim(classes, best.tried, CHUNK, axis=1)
        values = jnp.where((bound > -jnp.inf)[..., None, None], _evaluate(rows, weights, columns, chunk), -jnp.inf)
        scores = jnp.concatenate([best.scores, values], axis=1)
        labels = jnp.concatenate([best.labels, jnp.broadcast_to(chunk[..., None, None], values.shape)], axis=1)
        return _Best(jnp.minimum(best.tried + CHUNK, count), *_largest(scores, labels, best.scores.shape[1]))

    return lax.while_loop(unfinished, try_chunk, best)


def _evaluate(
    rows: Float[Array, "s q n"], weights: Float[Array, "y s"], columns: AxisTiles, classes: Int[Array, "t m"]
) -> Float[Array, "t m y x"]:
    """Scores of each tile's own choice of classes at all of its pixels."""
    of_tile = rows[:, columns.sources[:, :, None], classes[:, None, :]]  # s t u m
    return _upsample(of_tile, weights, jnp.asarray(columns.weights))


def _upsample(
    patches: Float[Array, "s t u m"], weights: Float[Array, "y s"], column_weights: Float[Array, "t x u"]
) -> Float[Array, "t m y x"]:
    """Few patches to many pixels; sums of products and no matrix products, for these would be tiny."""
    tall = _total(patches[i][..., None] * weights[None, None, None, :, i] for i in range(patches.shape[0]))  # t u m y
    return _total(tall[:, u, :, :, None] * column_weights[:, None, None, :, u] for u in range(column_weights.shape[2]))


def _largest(
    scores: Float[Array, "t m y x"], labels: Int[Array, "t m y x"], k: int
) -> tuple[Float[Array, "t k y x"], Int[Array, "t k y x"]]:
    """The k largest along the second axis, in order; equal ones by label. Passes over few candidates: small k."""
    none = jnp.int32(jnp.iinfo(jnp.int32).max)

    def better(a: tuple[Array, Array], b: tuple[Array, Array]) -> tuple[Array, Array]:
        first = (a[0] > b[0]) | ((a[0] == b[0]) & (a[1] < b[1]))
        return jnp.where(first, a[0], b[0]), jnp.where(first, a[1], b[1])

    def take_one(i: Int[Array, ""], state: tuple[Array, Array, Array]) -> tuple[Array, Array, Array]:
        scores, best_scores, best_labels = state
        best, label = (x[:, None] for x in lax.reduce((scores, labels), (-jnp.inf, none), better, (1,)))
        found = jnp.where(best > -jnp.inf, label, IGNORE_LABEL)
        return (
            jnp.where(labels == label, -jnp.inf, scores),
            lax.dynamic_update_slice_in_dim(best_scores, best, i, axis=1),
            lax.dynamic_update_slice_in_dim(best_labels, found, i, axis=1),
        )

    # A loop, because XLA's CPU compiler otherwise makes the scores anew in each pass, and what it makes anew may
    # differ in its last bit.
    shape = (scores.shape[0], k, *scores.shape[2:])
    state = scores, jnp.zeros(shape, scores.dtype), jnp.zeros(shape, labels.dtype)
    _, best_scores, best_labels = lax.fori_loop(0, k, take_one, state)
    return best_scores, best_labels


@jax.jit
def _shared_of_band(
    slab: Float[Array, "p q 1"], sources: Int[Array, " s"], weights: Float[Array, "y s"], columns: AxisTiles
) -> Float[Array, "t 1 y x"]:
    """What all classes share at every pixel of a band."""
    first = jnp.zeros((columns.first.shape[0], 1), jnp.int32)
    return _evaluate(slab[sources], weights, columns, first)


@jax.jit
def _log_sum_of_band(
    slab: Float[Array, "p q n"],
    multiplicity: Float[Array, " n"],
    sources: Int[Array, " s"],
    weights: Float[Array, "y s"],
    columns: AxisTiles,
    greatest: Float[Array, "t y x"],
) -> Float[Array, "t y x"]:
    """logsumexp over all classes at every pixel of a band, block by block; `greatest` is the best score there."""
    t, y, x = greatest.shape
    n = slab.shape[-1]
    # One weight per contributing patch and pixel: nothing but sums of products and exp remains in the loop.
    taps = weights[None, :, None, :, None] * columns.weights[:, None, :, None, :]  # t y x s u
    taps = taps.reshape(t, 1, y * x, -1)
    patches = slab[sources][:, columns.sources].transpose(1, 0, 2, 3).reshape(t, -1, n)
    highest = greatest.reshape(t, 1, -1)
    block = min(log_sum_block(greatest.size), n)

    def add(i: Int[Array, ""], total: Float[Array, "t pixels"]) -> Float[Array, "t pixels"]:
        start = jnp.minimum(i * block, n - block)  # the last block begins earlier and skips what it repeats
        counted = start + jnp.arange(block, dtype=jnp.int32) < i * block
        copies = jnp.where(counted, 0.0, lax.dynamic_slice_in_dim(multiplicity, start, block))
        scores = lax.dynamic_slice_in_dim(patches, start, block, axis=2)
        values = _total(scores[:, j, :, None] * taps[..., j] for j in range(taps.shape[-1]))
        return total + jnp.sum(jnp.exp(values - highest) * copies[None, :, None], axis=1)

    total = lax.fori_loop(0, -(-n // block), add, jnp.zeros((t, y * x)))
    return greatest + jnp.log(total).reshape(t, y, x)
