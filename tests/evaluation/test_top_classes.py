"""The search for the best classes against the whole map of all classes, made by NumPy."""

import dataclasses
import subprocess
import sys
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from larvseg_jax.evaluation import sliding_window, tile_search, top_classes
from larvseg_jax.evaluation.search_memory import LISTED, plan_memory
from larvseg_jax.evaluation.tiles import axis_tiles
from larvseg_jax.methods.larvseg.linear import centred_vectors, scaled_features
from larvseg_jax.methods.method import Vectors
from larvseg_jax.models.cosine_head import ClassTable
from tests.child import environment

BUDGET = 1 << 30
GAMMA, BETA = 1.7, -0.4


def unit(x):
    return x / np.linalg.norm(x, axis=-1, keepdims=True)


def make_patches(rng, p, q, d, smooth):
    """Unit patch features, each independent of its neighbours or much like them."""
    noise = rng.normal(size=(p, q, d))
    if smooth:
        y, x = np.arange(p)[:, None, None] / 3.0, np.arange(q)[:, None] / 3.0
        noise = 0.1 * noise + np.sin(y * rng.normal(size=d)) + np.cos(x * rng.normal(size=d))
    return unit(noise).astype(np.float32)


def direct(patches, vectors, multiplicity, a, b):
    """Every class at every pixel, as method 3 and 10 say, in float64: (H, W, n)."""
    scores = patches.astype(np.float64) @ vectors.astype(np.float64).T
    share = multiplicity / multiplicity.sum()
    centred = scores - (scores @ share)[..., None]
    variance = (centred**2 @ share)[..., None]
    logits = GAMMA * centred / np.sqrt(variance + 1e-5) + BETA
    return np.einsum("Hp,pqn,Wq->HWn", a, logits, b, optimize=True)


def search(patches, vectors, multiplicity, a, b, k, budget=BUDGET, most_corners=2, longest=64, **options):
    table = ClassTable(
        jnp.asarray(vectors), jnp.asarray(multiplicity, jnp.float32), jnp.float32(GAMMA), jnp.float32(BETA)
    )
    classes = centred_vectors(table)
    rows, columns = (axis_tiles(m, most_corners, longest) for m in (a, b))
    plan = plan_memory(rows, columns, patches.shape[1], len(vectors), k, budget, **options)
    scaled = scaled_features(jnp.asarray(patches), classes)
    return top_classes.top_classes(scaled, classes, rows, columns, plan)


def check(found, logits, competing, margin=1e-5):
    """Scores as the k greatest of the whole map; labels, too, wherever the next score is clearly lower."""
    k = found.scores.shape[-1]
    logits = np.where(competing, logits, -np.inf)
    order = np.argsort(-logits, axis=-1, kind="stable")
    ranked = np.take_along_axis(logits, order, -1)
    np.testing.assert_allclose(found.scores, ranked[..., :k], atol=margin, rtol=0)
    gaps = np.diff(-np.pad(ranked, ((0, 0), (0, 0), (0, k)), constant_values=-1e9).clip(-1e9), axis=-1)[..., :k]
    clear = (gaps > margin) & (np.concatenate([np.full_like(gaps[..., :1], np.inf), gaps[..., :-1]], -1) > margin)
    assert clear.mean() > 0.9
    np.testing.assert_array_equal(found.labels[clear], order[..., :k][clear])


# Test size, window, stride, patches along a window, output size.
GEOMETRIES = {
    "as it is": ((32, 48), 32, 32, (4, 4), (32, 48)),
    "overlapping windows": ((33, 50), 24, 10, (3, 3), (33, 50)),
    "odd, enlarged": ((32, 45), 32, 32, (4, 4), (67, 91)),
    "overlapping, odd, reduced": ((40, 61), 32, 24, (4, 4), (29, 37)),
    "one window, padded": ((19, 32), 32, 32, (4, 4), (38, 64)),
}


def matrices(size, window, stride, grid, out):
    return (
        sliding_window.stitch_matrix(n, window, stride, g, m, padded=True)
        for n, g, m in zip(size, grid, out, strict=True)
    )


@pytest.mark.parametrize("smooth", [False, True], ids=["rough", "smooth"])
@pytest.mark.parametrize("geometry", GEOMETRIES.values(), ids=GEOMETRIES)
def test_best_classes_equal_the_whole_map(geometry, smooth):
    rng = np.random.default_rng(0)
    a, b = matrices(*geometry)
    patches = make_patches(rng, a.shape[1], b.shape[1], 24, smooth)
    vectors = unit(rng.normal(size=(501, 24)) + 0.3).astype(np.float32)
    ones = np.ones(501)
    found = search(patches, vectors, ones, a, b, k=5)
    check(found, direct(patches, vectors, ones, a, b), ones > 0)


def test_what_all_classes_share_is_no_part_of_the_search_and_of_every_score():
    """Vectors of texts: the scores of all classes rise and fall together, by more than the classes differ."""
    rng = np.random.default_rng(2)
    a, b = matrices(*GEOMETRIES["odd, enlarged"])
    patches = 5 * make_patches(rng, a.shape[1], b.shape[1], 16, smooth=True)
    vectors = unit(rng.normal(size=16) + 0.1 * rng.normal(size=(300, 16))).astype(np.float32)
    competing = rng.random(300) < 0.9
    classes = Vectors(jnp.asarray(vectors), jnp.asarray(competing, jnp.float32), jnp.float32(BETA))
    without = top_classes.centred(classes)
    np.testing.assert_allclose(without.vectors[competing].mean(0), np.zeros(16), atol=1e-6)
    rows, columns = axis_tiles(a), axis_tiles(b)
    plan = plan_memory(rows, columns, patches.shape[1], 300, 3, BUDGET, log_sum=True)
    expected = np.einsum("Hp,pqd,nd,Wq->HWn", a, patches, vectors, b, optimize=True) + BETA
    total = np.log(np.exp(expected.astype(np.float64))[..., competing].sum(-1))
    for given in (classes, without):
        found = top_classes.top_classes(patches, given, rows, columns, plan)
        check(found, expected, competing)
        np.testing.assert_allclose(found.log_sum, total, atol=1e-4)


@pytest.mark.parametrize(("most_corners", "longest"), [(2, 5), (3, 64), (4, 64), (6, 64)])
def test_any_cut_into_tiles_gives_the_same(most_corners, longest):
    rng = np.random.default_rng(1)
    a, b = matrices(*GEOMETRIES["odd, enlarged"])
    patches = make_patches(rng, a.shape[1], b.shape[1], 16, smooth=True)
    vectors, ones = unit(rng.normal(size=(300, 16))).astype(np.float32), np.ones(300)
    found = search(patches, vectors, ones, a, b, 3, most_corners=most_corners, longest=longest)
    check(found, direct(patches, vectors, ones, a, b), ones > 0)


@pytest.mark.parametrize(("listed", "sorted_first", "stages"), [(48, 512, 0), (3, 512, 1), (3, 3, 2)])
def test_the_lists_of_patches_the_greatest_bounds_and_all_classes_give_the_same(
    monkeypatch, listed, sorted_first, stages
):
    """One after the other, for the tiles for which the one before does not suffice."""
    counts = set()
    by_bounds = tile_search._by_bounds

    def watched(slab, tiles, count):
        counts.add(count)
        return by_bounds(slab, tiles, count)

    monkeypatch.setattr(tile_search, "_by_bounds", watched)
    monkeypatch.setattr(tile_search, "LISTED", listed)
    monkeypatch.setattr(tile_search, "_OF_BOUNDS", sorted_first)
    jax.clear_caches()  # so that the lengths are read anew
    rng = np.random.default_rng(10)
    a, b = matrices(*GEOMETRIES["odd, enlarged"])
    patches = make_patches(rng, a.shape[1], b.shape[1], 16, smooth=True)
    vectors, competing = unit(rng.normal(size=(600, 16))).astype(np.float32), rng.random(600) < 0.8
    found = search(patches, vectors, competing, a, b, 3, longest=5)
    check(found, direct(patches, vectors, competing, a, b), competing)
    assert counts == set([sorted_first, 600][:stages])


@pytest.mark.parametrize("bands", [2, 5, 100])
@pytest.mark.parametrize("listed", [4, 20])
def test_several_bands_in_one_program_give_the_same(monkeypatch, bands, listed):
    """As on an accelerator; of the lists of 4 some tiles need more."""
    monkeypatch.setattr(jax, "default_backend", lambda: "gpu")
    monkeypatch.setattr(tile_search, "LISTED", listed)
    jax.clear_caches()  # so that both are read anew
    rng = np.random.default_rng(12)
    a, b = matrices((64, 45), 32, 32, (8, 4), (83, 91))
    patches = make_patches(rng, a.shape[1], b.shape[1], 16, smooth=listed == 4)
    vectors, competing = unit(rng.normal(size=(600, 16))).astype(np.float32), rng.random(600) < 0.8
    classes = Vectors(jnp.asarray(vectors), jnp.asarray(competing, jnp.float32), jnp.float32(BETA))
    rows, columns = (axis_tiles(m, 2, 5) for m in (a, b))
    plan = plan_memory(rows, columns, patches.shape[1], 600, 3, BUDGET, log_sum=True)
    assert (plan.bands, plan.threads) == (len(rows.first), 1)
    plan = dataclasses.replace(plan, bands=bands, slab_rows=9)  # of 16: two slabs
    found = top_classes.top_classes(patches, top_classes.centred(classes), rows, columns, plan)
    expected = np.einsum("Hp,pqd,nd,Wq->HWn", a, patches, vectors, b, optimize=True) + BETA
    check(found, expected, competing)
    total = np.log(np.exp(expected.astype(np.float64))[..., competing].sum(-1))
    np.testing.assert_allclose(found.log_sum, total, atol=1e-4)


@pytest.mark.parametrize("classes", [15, 16, 17, 100, 777])
def test_the_list_of_a_patch_has_the_best_classes(classes):
    rng = np.random.default_rng(11)
    slab = rng.normal(size=(3, 4, classes)).astype(np.float32)
    slab[:, :, ::5] = slab[:, :, :1]  # equal ones
    competing = rng.random(classes) < 0.7
    rows = np.array([1, 2], np.int32)
    found = tile_search.listed(jnp.asarray(slab), jnp.asarray(competing, jnp.float32), rows)
    expected = -np.sort(-np.where(competing, slab[rows], -np.inf), axis=-1)[..., : min(LISTED, classes)]
    np.testing.assert_array_equal(found.scores, expected)
    listed = np.isfinite(expected)
    its_scores = np.take_along_axis(slab[rows], np.asarray(found.classes), -1)
    np.testing.assert_array_equal(its_scores[listed], expected[listed])
    for patch, some in zip(np.asarray(found.classes).reshape(8, -1), listed.reshape(8, -1), strict=True):
        assert len(set(patch[some])) == some.sum()
        assert competing[patch[some]].all()


def test_a_class_that_ties_with_the_last_of_a_list_is_not_taken_for_listed():
    """Class 599 is the best at the right patch; at the left one it is as good as class 50, the last that is listed."""
    vectors = np.zeros((600, 2), np.float32)  # column by column the scores at the two patches
    vectors[: LISTED - 1] = np.linspace([1.1, 0.7], [1.0, 0.6], LISTED - 1)
    vectors[[50, 599]] = [[0.5, 0], [0.5, 2]]
    patches = np.eye(2, dtype=np.float32)[None]
    b = np.linspace([1, 0], [0, 1], 8, dtype=np.float32)
    rows, columns = axis_tiles(np.ones((2, 1), np.float32)), axis_tiles(b)
    plan = plan_memory(rows, columns, 2, 600, 2, BUDGET)
    classes = Vectors(jnp.asarray(vectors), jnp.ones(600), jnp.float32(0))
    found = top_classes.top_classes(patches, classes, rows, columns, plan)
    check(found, np.tile(b @ vectors.T, (2, 1, 1)), np.ones(600, bool))


@pytest.mark.parametrize(("classes", "k"), [(3, 1), (7, 7), (31, 5), (32, 1), (33, 5), (40, 36)])
def test_few_classes_and_many_wanted(classes, k):
    """Fewer classes than a chunk, chunks that do not divide them, more wanted than a chunk holds."""
    rng = np.random.default_rng(2)
    a, b = matrices(*GEOMETRIES["as it is"])
    patches = make_patches(rng, a.shape[1], b.shape[1], 12, smooth=False)
    vectors, ones = unit(rng.normal(size=(classes, 12))).astype(np.float32), np.ones(classes)
    found = search(patches, vectors, ones, a, b, k)
    check(found, direct(patches, vectors, ones, a, b), ones > 0)


def test_multiplicity_weighs_and_padding_never_wins():
    rng = np.random.default_rng(3)
    a, b = matrices(*GEOMETRIES["as it is"])
    patches = make_patches(rng, a.shape[1], b.shape[1], 12, smooth=False)
    vectors = unit(rng.normal(size=(200, 12))).astype(np.float32)
    multiplicity = rng.integers(0, 4, size=200)
    found = search(patches, vectors, multiplicity, a, b, 4, log_sum=True)
    logits = direct(patches, vectors, multiplicity, a, b)
    check(found, logits, multiplicity > 0)
    expected = np.log((np.exp(logits) * multiplicity).sum(-1))
    np.testing.assert_allclose(found.log_sum, expected, atol=1e-5)


def test_places_without_a_class_are_empty():
    rng = np.random.default_rng(4)
    a, b = matrices(*GEOMETRIES["as it is"])
    patches = make_patches(rng, a.shape[1], b.shape[1], 12, smooth=False)
    vectors = unit(rng.normal(size=(6, 12))).astype(np.float32)
    multiplicity = np.array([0, 1, 0, 1, 2, 0])
    found = search(patches, vectors, multiplicity, a, b, 5)
    check(found._replace(scores=found.scores[..., :3], labels=found.labels[..., :3]),
          direct(patches, vectors, multiplicity, a, b), multiplicity > 0)  # fmt: skip
    assert (found.labels[..., 3:] == -1).all()
    assert np.isneginf(found.scores[..., 3:]).all()


@pytest.mark.parametrize("block", [7, 64, 1000])
def test_log_sum_in_blocks(monkeypatch, block):
    monkeypatch.setattr(top_classes, "log_sum_block", lambda pixels: block)
    jax.clear_caches()  # so that the block is read anew
    rng = np.random.default_rng(5)
    a, b = matrices(*GEOMETRIES["overlapping, odd, reduced"])
    patches = make_patches(rng, a.shape[1], b.shape[1], 12, smooth=False)
    vectors, ones = unit(rng.normal(size=(129, 12))).astype(np.float32), np.ones(129)
    found = search(patches, vectors, ones, a, b, 2, log_sum=True)
    expected = np.log(np.exp(direct(patches, vectors, ones, a, b)).sum(-1))
    np.testing.assert_allclose(found.log_sum, expected, atol=1e-5)


@pytest.mark.slow
def test_of_equal_columns_the_lowest_comes_first():
    """In a process that compiles as users' do: equal to the last bit are only sums in the same order."""
    check = "from tests.evaluation.test_top_classes import check_equal_columns; check_equal_columns()"
    repository = Path(__file__).resolve().parent.parent.parent
    subprocess.run([sys.executable, "-c", check], env=environment(XLA_FLAGS=""), cwd=repository, check=True)


def check_equal_columns():
    """Every class three times, far apart: in other chunks, and other blocks of the matrix product."""
    rng = np.random.default_rng(6)
    a, b = matrices(*GEOMETRIES["odd, enlarged"])
    patches = make_patches(rng, a.shape[1], b.shape[1], 16, smooth=False)
    once = unit(rng.normal(size=(333, 16))).astype(np.float32)
    vectors = np.concatenate([once, once[::-1], once])
    found = search(patches, vectors, np.ones(999), a, b, 6)
    copies = np.stack([np.arange(333), 665 - np.arange(333), 666 + np.arange(333)], -1)
    for best in (0, 3):
        triple = found.labels[..., best : best + 3]
        assert (found.scores[..., best] == found.scores[..., best + 2]).all()
        np.testing.assert_array_equal(triple, copies[triple[..., 0]])


def test_all_scores_equal():
    """No bound excludes any class: all are tried, and the first ones win."""
    a, b = matrices(*GEOMETRIES["as it is"])
    patches = make_patches(np.random.default_rng(7), a.shape[1], b.shape[1], 8, smooth=False)
    vectors = np.repeat(unit(np.ones((1, 8))), 300, axis=0).astype(np.float32)
    found = search(patches, vectors, np.ones(300), a, b, 3)
    assert (found.labels == [0, 1, 2]).all()
    np.testing.assert_allclose(found.scores, BETA, atol=1e-3)  # rounding over a variance of nothing, 1 / sqrt(1e-5)


def test_of_no_more_classes_than_a_list_has_all_are_tried_at_once(monkeypatch):
    """Also where their scores are equal; with many patches behind a pixel, where XLA's CPU compiler once took 20 GB."""
    monkeypatch.setattr(tile_search, "_by_bounds", None)
    a, b = matrices((60, 60), 32, 12, (8, 8), (60, 60))
    patches = make_patches(np.random.default_rng(13), a.shape[1], b.shape[1], 8, smooth=False)
    found = search(patches, np.zeros((5, 8), np.float32), np.ones(5), a, b, 3)
    assert (found.labels == [0, 1, 2]).all()
    np.testing.assert_array_equal(found.scores, np.float32(BETA))


def test_a_small_budget_gives_the_same_in_more_slabs():
    rng = np.random.default_rng(8)
    a, b = matrices((96, 96), 32, 32, (8, 8), (96, 96))
    patches = make_patches(rng, a.shape[1], b.shape[1], 12, smooth=True)
    vectors, ones = unit(rng.normal(size=(400, 12))).astype(np.float32), np.ones(400)
    rows, columns = (axis_tiles(m, 2, 64) for m in (a, b))
    whole = plan_memory(rows, columns, 24, 400, 2, BUDGET)
    row = 24 * (400 + 2 * LISTED) * 4  # scores, and the lists of the best ones with their classes
    budget = whole.bytes - 24 * row + 5 * row
    small = plan_memory(rows, columns, 24, 400, 2, budget)
    assert (whole.slab_rows, small.slab_rows) == (24, 5)
    assert small.bytes <= budget
    found = search(patches, vectors, ones, a, b, 2, budget=budget)
    check(found, direct(patches, vectors, ones, a, b), ones > 0)
