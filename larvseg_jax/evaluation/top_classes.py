"""The best k of very many classes at every pixel, exactly, without a pixel x class map (docs/predict.md).

Scores exist on the patch grid only, a slab of its rows at a time. The output is cut into tiles inside which the
weights of upsampling and stitching are piecewise linear in y and in x, and searched band by band (`tile_search`).

Letters: p x q mosaic of patches, n classes, d feature width, k classes kept; r bands (tiles side by side), t tiles of
y x x pixels in all, b pixels in a row of a band, a contributing patches of a tile.
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
from larvseg_jax.evaluation.tile_search import (
    AnyArray,
    Lists,
    Slab,
    Tiles,
    at_tile,
    best_of_bands,
    listed,
    side_by_side,
    taps,
)
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
      plan: how many rows of patches are scored, and how many bands searched, at a time (`plan_memory`).
    """
    height, width = int(rows.last[-1]) + 1, int(columns.last[-1]) + 1
    scores = np.empty((height, width, plan.k), np.float32)
    labels = np.empty((height, width, plan.k), np.int32)
    log_sum = np.empty((height, width), np.float32) if plan.log_sum else None
    tile = np.repeat(np.arange(len(columns.first)), columns.last - columns.first + 1)
    column = tile * columns.weights.shape[1] + np.arange(width) - columns.first[tile]
    which = jnp.arange(plan.bands * len(columns.first), dtype=jnp.int32)
    on_device = jax.tree.map(jnp.asarray, columns)

    def search(slab: Slab, shared: Array | None, bands: AxisTiles) -> None:
        filled = AxisTiles(*(np.resize(part, (plan.bands, *part.shape[1:])) for part in bands))  # some once more
        tiles = Tiles(filled, on_device, which)
        best, best_labels = best_of_bands(slab, tiles, plan.k)
        common = np.broadcast_to(np.asarray(classes.offset), best.shape[:3])
        if shared is not None:
            common = common + np.asarray(_shared_of_tiles(shared, tiles, plan.bands))
        totals = common
        if log_sum is not None:
            totals = common + np.asarray(_log_sum_of_tiles(slab, tiles, best[..., 0]))
        for i, (first, last) in enumerate(zip(bands.first, bands.last, strict=True)):
            count, into = last - first + 1, slice(first, last + 1)
            # take: no copy on the way, and other threads go on.
            np.take(best[i, :count], column, axis=1, out=scores[into], mode="clip")
            np.take(best_labels[i, :count], column, axis=1, out=labels[into], mode="clip")
            scores[into] += common[i, :count, column, None].swapaxes(0, 1)
            if log_sum is not None:
                log_sum[into] = totals[i, :count, column].T

    with futures.ThreadPoolExecutor(plan.threads) as pool:
        for first, last, needed in _slabs(rows, plan.slab_rows):
            at_patches = _slab_scores(patches[needed], classes.vectors)
            shared = None if classes.common is None else _slab_scores(patches[needed], classes.common[None])
            bands = AxisTiles(*(part[first:last] for part in rows))
            bands = bands._replace(sources=np.searchsorted(needed, bands.sources).astype(np.int32))
            lists = _lists(pool, at_patches, classes.multiplicity, int(bands.sources.max()) + 1, plan.bands)
            slab = Slab(at_patches, classes.multiplicity, lists)
            parts = (
                AxisTiles(*(part[i : i + plan.bands] for part in bands)) for i in range(0, last - first, plan.bands)
            )
            list(pool.map(functools.partial(search, slab, shared), parts))
            del at_patches, slab
    return TopClasses(scores, labels, log_sum)


def _lists(pool: futures.Executor, scores: Array, multiplicity: Array, used: int, together: int) -> Lists:
    """The lists of the first rows of the slab that are used, so many at a time; the others have the last one's."""

    def of_rows(first: int) -> Lists:
        rows = np.minimum(np.arange(first, first + together, dtype=np.int32), used - 1)
        return jax.block_until_ready(listed(scores, multiplicity, rows))  # here, and not where all wait for it

    made = list(pool.map(of_rows, range(0, used, together)))
    row = np.minimum(np.arange(len(scores)), used - 1)
    return Lists(*(jnp.concatenate(part)[row] for part in zip(*made, strict=True)))


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


@functools.partial(jax.jit, static_argnums=2)
def _shared_of_tiles(shared: Float[Array, "p q 1"], tiles: Tiles, bands: int) -> Float[Array, "r y b"]:
    """What all classes share at every pixel."""
    of_tiles = jnp.sum(_patches_of_tiles(shared, tiles) * _taps_of_tiles(tiles), axis=1, keepdims=True)
    return side_by_side(of_tiles, tiles, bands)[..., 0]


@jax.jit
def _log_sum_of_tiles(slab: Slab, tiles: Tiles, greatest: Float[AnyArray, "r y b"]) -> Float[Array, "r y b"]:
    """logsumexp over all classes at every pixel, block by block; `greatest` is the best score there."""
    # One weight per contributing patch and pixel: nothing but sums of products and exp remains in the loop.
    weights, patches = _taps_of_tiles(tiles), _patches_of_tiles(slab.scores, tiles)
    (bands, y, _), t, n = greatest.shape, len(weights), slab.scores.shape[-1]
    highest = jnp.asarray(greatest).reshape(bands, y, t // bands, -1).swapaxes(1, 2).reshape(t, 1, -1)
    block = min(log_sum_block(greatest.size), n)

    def add(i: Int[Array, ""], total: Float[Array, "t pixels"]) -> Float[Array, "t pixels"]:
        start = jnp.minimum(i * block, n - block)  # the last block begins earlier and skips what it repeats
        counted = start + jnp.arange(block, dtype=jnp.int32) < i * block
        copies = jnp.where(counted, 0.0, lax.dynamic_slice_in_dim(slab.multiplicity, start, block))
        scores = lax.dynamic_slice_in_dim(patches, start, block, axis=2)
        values = functools.reduce(
            jnp.add, (scores[:, j, :, None] * weights[:, j, None] for j in range(weights.shape[1]))
        )
        return total + jnp.sum(jnp.exp(values - highest) * copies[None, :, None], axis=1)

    total = lax.fori_loop(0, -(-n // block), add, jnp.zeros((t, highest.shape[-1])))
    return side_by_side(highest + jnp.log(total)[:, None], tiles, bands)[..., 0]


def _patches_of_tiles(scores: Float[Array, "p q n"], tiles: Tiles) -> Float[Array, "t a n"]:
    """The scores at the patches that contribute to each tile."""
    return jax.vmap(functools.partial(at_tile, scores))(tiles.axes())


def _taps_of_tiles(tiles: Tiles) -> Float[Array, "t a pixels"]:
    rows, columns = tiles.axes()
    return jax.vmap(taps)(rows.weights, columns.weights)
