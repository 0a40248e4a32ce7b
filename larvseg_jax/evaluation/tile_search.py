"""The best k of very many classes at every pixel of tiles side by side, exactly.

The score of a class anywhere in a tile lies below its greatest score at the tile's few corners, its bound. Classes are
tried from the greatest bound downwards until the next one is below the k-th best score of every pixel: usually
some dozens. Which classes these are say lists of the best ones at every patch: the weights of upsampling are not
negative and add up to 1, so that no class outside the lists of a tile's patches scores higher in it than the last of
one of them. Where that leaves a class that could matter, as in tiles whose patches have little in common, the bounds of
all classes are made and sorted.

Letters: p x q mosaic of patches, n classes, k classes kept, c classes listed per patch, m classes in question; r bands
of tiles side by side, t tiles in all; y x x pixels of a tile, b of these in a row of a band, v and w corners and s and
u contributing patches along y and x, a = s * u of these in all.
"""

from __future__ import annotations

import functools
from collections.abc import Iterable
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax
from jaxtyping import Array, Bool, Float, Float32, Int, Int32, Shaped

from larvseg_jax.evaluation.search_memory import CHUNK, LISTED, TOGETHER
from larvseg_jax.evaluation.tiles import AxisTiles
from larvseg_jax.vocabulary import IGNORE_LABEL

AnyArray = Array | np.ndarray

_OF_LISTS = 128  # classes of the lists of a tile's patches that are tried at most
_OF_BOUNDS = 512  # classes sorted by their bound first; all of them only where these do not suffice
_GROUP = 16  # classes of which a patch looks at the greatest score first
_SLACK = 2e-5  # of the bounds, relative: rounding, and weights that are linear to 1e-6 only


class Lists(NamedTuple):
    """The best classes at every patch, best first."""

    scores: Float[Array, "p q c"]
    classes: Int[Array, "p q c"]


class Slab(NamedTuple):
    """Rows of patches.

    Attributes:
      scores: of the classes at the patches.
      multiplicity: 0 for classes that do not compete.
      lists: of the patches that tiles use (`listed`).
    """

    scores: Float[Array, "p q n"]
    multiplicity: Float[Array, " n"]
    lists: Lists


class Tiles(NamedTuple):
    """Tiles of bands.

    Attributes:
      bands: along y, `sources` counted in a slab.
      columns: along x.
      which: the tiles meant, counted band by band.
    """

    bands: AxisTiles
    columns: AxisTiles
    which: Int[AnyArray, " t"]

    def axes(self) -> _Axes:
        """What each tile has along both axes."""
        row, column = jnp.divmod(self.which, len(self.columns.first))
        bands, columns = (jax.tree.map(jnp.asarray, axis) for axis in (self.bands, self.columns))
        return _Axes(AxisTiles(*(part[row] for part in bands)), AxisTiles(*(part[column] for part in columns)))


class _Axes(NamedTuple):
    """Of t tiles along y and along x; of a single one all arrays have an axis less."""

    rows: AxisTiles
    columns: AxisTiles


class _ToTry(NamedTuple):
    """Classes by falling bound (-inf: not to be tried); no other one has a greater bound than `rest`."""

    bounds: Float[Array, "*t m"]
    classes: Int[Array, "*t m"]
    rest: Float[Array, "*t"]


class _Best(NamedTuple):
    """The best classes at every pixel of t tiles; `complete` where no class that was not tried can be among them."""

    scores: Float[Array, "r y b k"]
    labels: Int[Array, "r y b k"]
    complete: Bool[Array, " t"]


@jax.jit
def listed(
    scores: Float[Array, "p q n"], multiplicity: Float[Array, " n"], rows: Int[Array, " r"] | Int[np.ndarray, " r"]
) -> Lists:
    """The best classes of some rows of patches, "r q c"; of classes that do not compete -inf."""
    return jax.vmap(functools.partial(_listed, scores, multiplicity))(jnp.asarray(rows))


def _listed(scores: Float[Array, "p q n"], multiplicity: Float[Array, " n"], row: Int[Array, ""]) -> Lists:
    q, n = scores.shape[1:]
    c, groups = min(LISTED, n), -(-n // _GROUP)
    # The c best are in the c groups of the greatest maxima: sorting few maxima takes less time than sorting n scores.
    of_row = jnp.where(multiplicity[None] > 0, scores[row], -jnp.inf)
    filled = jnp.pad(of_row, ((0, 0), (0, _GROUP * groups - n)), constant_values=-jnp.inf)
    _, best_groups = lax.top_k(jnp.max(filled.reshape(q, _GROUP, groups), axis=1), min(c, groups))
    members = jnp.arange(_GROUP, dtype=jnp.int32)[None, :, None] * groups + best_groups[:, None]
    classes = jnp.minimum(members.reshape(q, -1), n - 1)
    competes = (members.reshape(q, -1) < n) & (multiplicity[classes] > 0)
    of_patch = jnp.arange(q, dtype=jnp.int32)[:, None]
    best, place = lax.top_k(jnp.where(competes, scores[row, of_patch, classes], -jnp.inf), c)
    return Lists(best, jnp.take_along_axis(classes, place, axis=1))


def best_of_bands(
    slab: Slab, tiles: Tiles, k: int
) -> tuple[Float32[np.ndarray, "r y b k"], Int32[np.ndarray, "r y b k"]]:
    """Scores and labels of the best k classes, best first; of equal scores the lowest class comes first.

    `tiles` are all of their bands.
    """
    # In programs of their own: in that of the search XLA does not find top_k, and sorts all.
    best = _search(slab, tiles, _by_lists(slab, tiles), k, len(tiles.bands.first))
    scores, labels, complete = (np.asarray(part) for part in best)
    if not complete.all():
        scores, labels = scores.copy(), labels.copy()
        left, columns = np.flatnonzero(~complete), len(tiles.columns.first)
        width = scores.shape[2] // columns
        for which in np.split(left, range(TOGETHER, len(left), TOGETHER)):
            found = [np.asarray(part) for part in _searched_whole(slab, tiles, which, k)[:2]]
            for i, (row, column) in enumerate(zip(*np.divmod(which, columns), strict=True)):
                pixels, own = (slice(j * width, (j + 1) * width) for j in (column, i))
                scores[row, :, pixels], labels[row, :, pixels] = (part[0, :, own] for part in found)
    return scores, labels


def _searched_whole(slab: Slab, tiles: Tiles, which: np.ndarray, k: int) -> _Best:
    """A few of the tiles, by the bounds of all classes; as one band."""
    some = tiles._replace(which=np.pad(which, (0, TOGETHER - len(which)), mode="edge").astype(np.int32))
    n = slab.scores.shape[-1]
    best = _search(slab, some, _by_bounds(slab, some, min(_OF_BOUNDS, n)), k, 1)
    return best if best.complete.all() else _search(slab, some, _by_bounds(slab, some, n), k, 1)


@jax.jit
def _by_lists(slab: Slab, tiles: Tiles) -> _ToTry:
    return jax.vmap(functools.partial(_from_lists, slab))(tiles.axes())


@functools.partial(jax.jit, static_argnums=2)
def _by_bounds(slab: Slab, tiles: Tiles, count: int) -> _ToTry:
    return jax.vmap(functools.partial(_from_bounds, slab, count))(tiles.axes())


def _from_lists(slab: Slab, tile: _Axes) -> _ToTry:
    """The classes listed at the patches of one tile, each once."""
    scores, classes = (at_tile(part, tile) for part in slab.lists)  # a c
    everything = classes.shape[1] == slab.scores.shape[-1]
    if everything:  # In every list. Of fewer than CHUNK, with many patches, XLA's CPU compiler makes code of gigabytes.
        filler = (0, 0), (0, max(CHUNK - classes.shape[1], 0))
        scores, classes = jnp.pad(scores[:1], filler, constant_values=-jnp.inf), jnp.pad(classes[:1], filler)
    flat, last = classes.reshape(-1), scores[:, -1]
    at_patches = _at_patches(slab, tile, flat)
    patch = jnp.arange(len(last), dtype=jnp.int32)
    before = patch[:, None] < jnp.repeat(patch, classes.shape[1])[None]
    # In the list of an earlier patch, too. Where scores are equal that is not known, and a class may be tried twice.
    repeated = jnp.any((at_patches > last[:, None]) & before, axis=0)
    bounds = _bounds(at_patches, taps(tile.rows.corners, tile.columns.corners))
    bounds = jnp.where(repeated | (scores.reshape(-1) == -jnp.inf), -jnp.inf, bounds)
    ordered, place = lax.top_k(bounds, min(_OF_LISTS, len(flat)))
    unlisted = jnp.float32(-jnp.inf) if everything else jnp.max(last)
    return _ToTry(ordered, flat[place], _rest(ordered, len(flat), unlisted))


def _from_bounds(slab: Slab, count: int, tile: _Axes) -> _ToTry:
    """The classes of the greatest bounds in one tile, of all that compete."""
    bounds = _bounds(at_tile(slab.scores, tile), taps(tile.rows.corners, tile.columns.corners))
    ordered, classes = lax.top_k(jnp.where(slab.multiplicity > 0, bounds, -jnp.inf), count)
    return _ToTry(ordered, classes, _rest(ordered, len(bounds), jnp.float32(-jnp.inf)))


def _rest(ordered: Float[Array, " m"], of: int, others: Float[Array, ""]) -> Float[Array, ""]:
    """Of m sorted out of so many, and of others that were not among them."""
    # min, as XLA sorts all of them where it sees that the last one is wanted.
    return jnp.maximum(others, jnp.min(ordered)) if len(ordered) < of else others


def _bounds(at_patches: Float[Array, "a m"], corners: Float[Array, "a vw"]) -> Float[Array, " m"]:
    """No class scores higher in the tile than this: the greatest score at a corner."""
    return functools.reduce(jnp.maximum, (_weighted(at_patches, corners[:, i]) for i in range(corners.shape[1])))


@functools.partial(jax.jit, static_argnums=(3, 4))
def _search(slab: Slab, tiles: Tiles, to_try: _ToTry, k: int, bands: int) -> _Best:
    """Tries the classes of every tile until no other can matter; on a CPU of so few tiles that its cache holds them."""
    t = len(to_try.rest)
    together = -(-t // -(-t // TOGETHER)) if jax.default_backend() == "cpu" else t
    of_tiles = to_try, tiles.axes()
    scores, labels, complete = lax.map(lambda of_tile: _search_tile(slab, k, *of_tile), of_tiles, batch_size=together)
    return _Best(side_by_side(scores, tiles, bands), side_by_side(labels, tiles, bands), complete)


def _search_tile(
    slab: Slab, k: int, to_try: _ToTry, tile: _Axes
) -> tuple[Float[Array, "k pixels"], Int[Array, "k pixels"], Bool[Array, ""]]:
    """One tile, its pixels in a row: so XLA's CPU compiler uses the whole width of the processor's vectors."""
    filler = CHUNK + -len(to_try.bounds) % CHUNK
    bounds = jnp.pad(to_try.bounds, (0, filler), constant_values=-jnp.inf)
    classes = jnp.pad(to_try.classes, (0, filler))
    slack = _SLACK * jnp.maximum(1.0, jnp.where(bounds[0] > -jnp.inf, bounds[0], 1.0))
    weights_at = taps(tile.rows.weights, tile.columns.weights)

    def needed(scores: Array) -> Array:
        return jnp.min(scores[-1]) - slack

    def unfinished(state: tuple[Array, Array, Array]) -> Array:
        tried, scores, _ = state
        return (bounds[tried] > -jnp.inf) & (bounds[tried] >= needed(scores))

    def try_chunk(state: tuple[Array, Array, Array]) -> tuple[Array, Array, Array]:
        tried, scores, labels = state
        bound, chunk = (lax.dynamic_slice_in_dim(part, tried, CHUNK) for part in (bounds, classes))
        values = _weighted(_at_patches(slab, tile, chunk)[..., None], weights_at[:, None])
        values = jnp.where((bound > -jnp.inf)[:, None], values, -jnp.inf)
        scores = jnp.concatenate([scores, values])
        labels = jnp.concatenate([labels, jnp.broadcast_to(chunk[:, None], values.shape)])
        return tried + CHUNK, *_largest(scores, labels, k)

    nothing = jnp.full((k, weights_at.shape[1]), -jnp.inf), jnp.full((k, weights_at.shape[1]), IGNORE_LABEL, jnp.int32)
    _, scores, labels = lax.while_loop(unfinished, try_chunk, (jnp.int32(0), *nothing))
    return scores, labels, (to_try.rest == -jnp.inf) | (to_try.rest < needed(scores))


def at_tile(of_patches: Shaped[Array, "p q m"], tile: _Axes) -> Shaped[Array, "a m"]:
    """What the patches that contribute to a tile have."""
    return of_patches[tile.rows.sources[:, None], tile.columns.sources[None]].reshape(-1, of_patches.shape[-1])


def _at_patches(slab: Slab, tile: _Axes, classes: Int[Array, " m"]) -> Float[Array, "a m"]:
    row, column = tile.rows.sources[:, None, None], tile.columns.sources[None, :, None]
    return slab.scores[row, column, classes[None, None]].reshape(-1, len(classes))


def taps(weights: Float[AnyArray, "y s"], column_weights: Float[AnyArray, "x u"]) -> Float[Array, "a pixels"]:
    """The weight of each contributing patch at each pixel of a tile (or corner), row by row."""
    product = jnp.asarray(weights.T)[:, None, :, None] * column_weights.T[None, :, None, :]
    return product.reshape(product.shape[0] * product.shape[1], -1)


def side_by_side(of_tiles: Float[Array, "t k pixels"] | Int[Array, "t k pixels"], tiles: Tiles, bands: int) -> Array:
    """Of the pixels of each tile -> of those of the bands, "r y b k"."""
    y, x, k = tiles.bands.weights.shape[1], tiles.columns.weights.shape[1], of_tiles.shape[1]
    return of_tiles.reshape(bands, -1, k, y, x).transpose(0, 3, 1, 4, 2).reshape(bands, y, -1, k)


def _weighted(patches: Iterable[Array], taps: Iterable[Array]) -> Array:
    """Sums of products and no matrix products, for these would be tiny."""
    return functools.reduce(jnp.add, (patch * tap for patch, tap in zip(patches, taps, strict=True)))


def _largest(
    scores: Float[Array, "m pixels"], labels: Int[Array, "m pixels"], k: int
) -> tuple[Float[Array, "k pixels"], Int[Array, "k pixels"]]:
    """The k largest along the first axis, in order; equal ones by label, each label once. k passes, for small k."""
    none = jnp.int32(jnp.iinfo(jnp.int32).max)

    def better(a: tuple[Array, Array], b: tuple[Array, Array]) -> tuple[Array, Array]:
        first = (a[0] > b[0]) | ((a[0] == b[0]) & (a[1] < b[1]))
        return jnp.where(first, a[0], b[0]), jnp.where(first, a[1], b[1])

    def take_one(i: Int[Array, ""], state: tuple[Array, Array, Array]) -> tuple[Array, Array, Array]:
        scores, best_scores, best_labels = state
        best, label = (part[None] for part in lax.reduce((scores, labels), (-jnp.inf, none), better, (0,)))
        found = jnp.where(best > -jnp.inf, label, IGNORE_LABEL)
        return (
            jnp.where(labels == label, -jnp.inf, scores),
            lax.dynamic_update_slice_in_dim(best_scores, best, i, axis=0),
            lax.dynamic_update_slice_in_dim(best_labels, found, i, axis=0),
        )

    # A loop, because XLA's CPU compiler otherwise makes the scores anew in each pass, and what it makes anew may
    # differ in its last bit.
    shape = (k, scores.shape[1])
    state = scores, jnp.zeros(shape, scores.dtype), jnp.zeros(shape, labels.dtype)
    _, best_scores, best_labels = lax.fori_loop(0, k, take_one, state)
    return best_scores, best_labels
