"""The best k of very many classes at every pixel, exactly, without a pixel x class map (docs/predict.md).

Scores exist on the patch grid only, a slab of its rows at a time. The output is cut into tiles inside which the
weights of upsampling and stitching are piecewise linear in y and in x, and searched band by band (`tile_search`).

Letters: p x q mosaic of patches, n classes, d feature width, k classes kept; in a band (tiles side by side):
t tiles of y x x pixels, b = t * x of these in a row, s contributing patches along an axis, a of these in all.
"""

from __future__ import annotations

import functools
from collections.abc import Iterator
from concurrent import futures
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax
from jaxtyping import Array, Float, Float32, Int, Int32

from larvseg_jax.evaluation.search_memory import Plan, log_sum_block
from larvseg_jax.evaluation.tile_search import AnyArray, Band, Lists, best_of_band, listed, side_by_side, taps
from larvseg_jax.evaluation.tiles import AxisTiles
from larvseg_jax.methods.method import Vectors
from larvseg_jax.models.precision import precise_einsum


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
    column = tile * columns.weights.shape[1] + np.arange(width) - columns.first[tile]
    on_device = jax.tree.map(jnp.asarray, columns)

    def search(slab: Array, lists: Lists, shared: Array | None, local: np.ndarray, i: int) -> None:
        band = Band(slab, classes.multiplicity, lists, local, rows.weights[i], rows.corners[i], on_device)
        best, best_labels = best_of_band(band, plan.k)
        count = rows.last[i] - rows.first[i] + 1
        into = slice(rows.first[i], rows.first[i] + count)
        common = np.asarray(classes.offset)
        if shared is not None:
            common = common + np.asarray(_shared_of_band(shared, band))[:count, column]
        # take: no copy on the way, and other threads go on.
        np.take(best[:count], column, axis=1, out=scores[into], mode="clip")
        np.take(best_labels[:count], column, axis=1, out=labels[into], mode="clip")
        scores[into] += common[..., None]
        if log_sum is not None:
            log_sum[into] = np.asarray(_log_sum_of_band(band, best[..., 0]))[:count, column] + common

    with futures.ThreadPoolExecutor(plan.threads) as pool:
        for first, last, needed in _slabs(rows, plan.slab_rows):
            slab = _slab_scores(patches[needed], classes.vectors)
            shared = None if classes.common is None else _slab_scores(patches[needed], classes.common[None])
            local = np.searchsorted(needed, rows.sources[first:last]).astype(np.int32)
            lists = _lists(pool, slab, classes.multiplicity, int(local.max()) + 1)
            list(pool.map(functools.partial(search, slab, lists, shared), local, range(first, last)))
            del slab
    return TopClasses(scores, labels, log_sum)


def _lists(pool: futures.Executor, slab: Array, multiplicity: Array, used: int) -> Lists:
    """The lists of the first rows of the slab that are used; the others have the last one's."""

    def of_row(row: np.int32) -> Lists:
        return jax.block_until_ready(listed(slab, multiplicity, row))  # here, and not where all wait for it

    made = list(pool.map(of_row, np.arange(used, dtype=np.int32)))
    made += made[-1:] * (len(slab) - used)
    return Lists(*(jnp.stack(part) for part in zip(*made, strict=True)))


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


@jax.jit
def _shared_of_band(shared: Float[Array, "p q 1"], band: Band) -> Float[Array, "y b"]:
    """What all classes share at every pixel of a band."""
    of_tiles = jnp.sum(_patches_of_tiles(shared, band) * _taps_of_tiles(band), axis=1, keepdims=True)
    return side_by_side(of_tiles, band)[..., 0]


@jax.jit
def _log_sum_of_band(band: Band, greatest: Float[AnyArray, "y b"]) -> Float[Array, "y b"]:
    """logsumexp over all classes at every pixel of a band, block by block; `greatest` is the best score there."""
    # One weight per contributing patch and pixel: nothing but sums of products and exp remains in the loop.
    weights, patches = _taps_of_tiles(band), _patches_of_tiles(band.slab, band)
    t, y, n = len(weights), len(greatest), band.slab.shape[-1]
    highest = jnp.asarray(greatest).reshape(y, t, -1).transpose(1, 0, 2).reshape(t, 1, -1)
    block = min(log_sum_block(greatest.size), n)

    def add(i: Int[Array, ""], total: Float[Array, "t pixels"]) -> Float[Array, "t pixels"]:
        start = jnp.minimum(i * block, n - block)  # the last block begins earlier and skips what it repeats
        counted = start + jnp.arange(block, dtype=jnp.int32) < i * block
        copies = jnp.where(counted, 0.0, lax.dynamic_slice_in_dim(band.multiplicity, start, block))
        scores = lax.dynamic_slice_in_dim(patches, start, block, axis=2)
        values = functools.reduce(
            jnp.add, (scores[:, j, :, None] * weights[:, j, None] for j in range(weights.shape[1]))
        )
        return total + jnp.sum(jnp.exp(values - highest) * copies[None, :, None], axis=1)

    total = lax.fori_loop(0, -(-n // block), add, jnp.zeros((t, highest.shape[-1])))
    return side_by_side(highest + jnp.log(total)[:, None], band)[..., 0]


def _patches_of_tiles(slab: Float[Array, "p q n"], band: Band) -> Float[Array, "t a n"]:
    """The scores at the patches that contribute to each tile."""
    rows = slab[band.sources][:, band.columns.sources]  # s t u n
    return rows.transpose(1, 0, 2, 3).reshape(rows.shape[1], -1, slab.shape[-1])


def _taps_of_tiles(band: Band) -> Float[Array, "t a pixels"]:
    return jax.vmap(functools.partial(taps, band.weights))(band.columns.weights)
