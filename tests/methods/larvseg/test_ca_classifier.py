"""Attention maps, mining and the whole step against loops over images, labels, classes and pixels."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from larvseg_jax.methods.larvseg import ca_classifier, memory_bank
from larvseg_jax.methods.larvseg.ca_classifier import CAConfig, MinedBackground
from larvseg_jax.methods.larvseg.loss_grid import pooling_weights
from larvseg_jax.methods.larvseg.memory_bank import MemoryBank
from larvseg_jax.methods.larvseg.region import pseudo_region
from larvseg_jax.methods.larvseg.tag_pooling import pool_tags
from larvseg_jax.models.cosine_head import ClassTable
from larvseg_jax.vocabulary import IGNORE_LABEL

WIDTH, GRID, CLASSES = 6, (4, 5), 11
PATCHES = GRID[0] * GRID[1]
TAGS = np.array([[2, 5, 9], [3, -1, -1], [-1, -1, -1], [0, 7, -1], [8, -1, -1], [6, -1, -1]], np.int32)


def config(**changes):
    options = {
        "variant": "cross_image",
        "memory_bank_size": 2,
        "foreground_topk": 3,
        "warmup": 1,
        "background_topk": 4,
        "background_threshold": 0.45,
        "background_mse_threshold": 1.0,
        "class_block": 4,
        "bank_dtype": "float32",
    }
    return CAConfig(**options | changes)


def test_the_defaults_are_the_papers_numbers():
    """M = K = 20, one full ring (method 6.4), thresholds 0.2 and 1.0 on the five best pixels (method 6.5)."""
    numbers = {
        "memory_bank_size": 20,
        "foreground_topk": 20,
        "warmup": 1,
        "background_topk": 5,
        "background_threshold": 0.2,
        "background_mse_threshold": 1.0,
    }
    assert {name: getattr(CAConfig(), name) for name in numbers} == numbers


def test_the_patches_of_a_tag_are_those_that_lead_most_over_the_other_tags():
    rng = np.random.default_rng(0)
    scores = rng.standard_normal((3, 4, 7)).astype(np.float32)
    scores[0, 1] = scores[0, 2]  # two columns of one class: no rivals of each other
    present = np.array([[True, True, True, True], [True, False, True, True], [False, True, False, False]])
    found = ca_classifier.foreground_ranking(jnp.asarray(scores), jnp.asarray(present), config(foreground_by="lead"))
    for image, tag, patch in np.ndindex(scores.shape):
        if present[image, tag]:
            of_one = {(0, 1): (1, 2), (0, 2): (1, 2)}.get((image, tag), (tag,))
            others = [scores[image, t, patch] for t in range(4) if present[image, t] and t not in of_one]
            expected = scores[image, tag, patch] - max(others, default=0.0)
            np.testing.assert_allclose(found[image, tag, patch], expected, atol=1e-6)
    by_score = ca_classifier.foreground_ranking(jnp.asarray(scores), jnp.asarray(present), config())
    np.testing.assert_array_equal(by_score, scores)


@pytest.mark.parametrize("count", [1, 4, 7])
def test_the_mean_of_the_best_counts_equal_scores_as_often_as_there_is_room(count):
    rng = np.random.default_rng(0)
    scores = rng.integers(0, 5, (3, 6, 7)).astype(np.float32)  # of 7 numbers some are equal
    expected = np.sort(scores, axis=-1)[..., ::-1][..., :count].mean(-1)
    np.testing.assert_allclose(ca_classifier.mean_of_best(jnp.asarray(scores), count), expected, rtol=1e-6)


def unit_vectors(rng, *shape):
    x = rng.standard_normal(shape)
    return (x / np.linalg.norm(x, axis=-1, keepdims=True)).astype(np.float32)


def class_table(vectors, multiplicity=None):
    ones = np.ones(len(vectors), np.float32)
    counts = ones if multiplicity is None else np.asarray(multiplicity, np.float32)
    return ClassTable(jnp.asarray(vectors), jnp.asarray(counts), jnp.array(1.5), jnp.array(0.2))


def standardised(x):
    return (x - x.mean()) / np.sqrt(x.var() + 1e-5)


def unbiased(x):
    return (x - x.mean()) / x.std(ddof=1)


def mined_in_loops(patches, vectors, means, label, options, multiplicity):
    """(candidates, kept) of one image: lists of classes, each as often as its multiplicity says."""
    foreground = patches @ means[label]
    candidates, kept = [], []
    for k in range(len(vectors)):
        best = sorted((float(patch @ vectors[k]) for patch in patches), reverse=True)
        score = np.mean(best[: options.background_topk])
        assert abs(score - options.background_threshold) > 1e-5, "a tie: choose other numbers"
        if k == label or not means[k].any() or score <= options.background_threshold:
            continue
        candidates += [k] * int(multiplicity[k])
        mse = np.mean((unbiased(foreground) - unbiased(patches @ means[k])) ** 2)
        assert abs(mse - options.background_mse_threshold) > 1e-5, "a tie: choose other numbers"
        if mse > options.background_mse_threshold:
            kept += [k] * int(multiplicity[k])
    return candidates, kept


def attention_in_loops(patches, vectors, means, tags, options, multiplicity):
    """norm(S_fg - S_bg) for every tag of one image, (labels, p)."""
    labels = [t for t in tags if t != IGNORE_LABEL]
    maps = []
    for label in labels:
        foreground = patches @ means[label]
        background = [patches @ means[other] for other in labels if other != label]
        if len(labels) == 1:
            _, kept = mined_in_loops(patches, vectors, means, label, options, multiplicity)
            background = [patches @ means[k] for k in kept] or [1.0 - foreground]
        maps.append(standardised(foreground - np.mean(background, axis=0)))
    return maps


def mine(patches, vectors, means, labels, options, multiplicity=None):
    foreground = np.stack([x @ means[label] for x, label in zip(patches, labels, strict=True)])
    return ca_classifier.mine_background(
        jnp.asarray(patches),
        class_table(vectors, multiplicity),
        jnp.asarray(means),
        jnp.asarray(labels, jnp.int32),
        jnp.asarray(foreground),
        options,
    )


@pytest.mark.parametrize("block", [1, 3, 4, CLASSES, 100])
def test_mining_matches_loops_in_blocks_of_any_size(block):
    rng = np.random.default_rng(0)
    patches, vectors = unit_vectors(rng, 8, PATCHES, WIDTH), unit_vectors(rng, CLASSES, WIDTH)
    means = 0.5 * unit_vectors(rng, CLASSES, WIDTH)
    means[4] = 0.0  # nothing was ever written
    multiplicity = np.array([1, 2, 1, 1, 1, 3, 1, 1, 1, 1, 0])  # the last one is padding
    labels = np.array([0, 1, 2, 3, 5, 6, 7, 8])
    options = config(class_block=block)
    mined = mine(patches, vectors, means, labels, options, multiplicity)
    seen = set()
    for i, label in enumerate(labels):
        candidates, kept = mined_in_loops(patches[i], vectors, means, label, options, multiplicity)
        assert int(mined.candidates[i]) == len(candidates)
        assert int(mined.kept[i]) == len(kept)
        mean = means[kept].mean(0) if kept else np.zeros(WIDTH)
        np.testing.assert_allclose(mined.mean[i], mean, atol=1e-6)
        seen |= {
            ("kept", bool(kept)),
            ("some rejected", len(kept) < len(candidates)),
            ("copies", len(set(kept)) < len(kept)),
        }
    assert len(seen) >= 5, "the images show too few of the situations"


def test_a_class_with_an_empty_bank_is_never_mined():
    rng = np.random.default_rng(1)
    patches, vectors = unit_vectors(rng, 2, PATCHES, WIDTH), unit_vectors(rng, CLASSES, WIDTH)
    means = np.zeros((CLASSES, WIDTH), np.float32)
    means[3] = vectors[3]
    everything = config(background_threshold=-2.0, background_mse_threshold=-1.0)
    mined = mine(patches, vectors, means, [3, 5], everything)
    np.testing.assert_array_equal(mined.kept, [0, 1])
    assert np.all(np.isfinite(mined.mean))


def test_the_difference_of_two_maps_is_measured_in_unbiased_deviations():
    rng = np.random.default_rng(6)
    patches, vectors = unit_vectors(rng, 1, PATCHES, WIDTH), unit_vectors(rng, CLASSES, WIDTH)
    means = np.zeros((CLASSES, WIDTH), np.float32)
    means[:2] = vectors[:2]
    mse = np.mean((unbiased(patches[0] @ means[0]) - unbiased(patches[0] @ means[1])) ** 2)
    for factor, kept in ((0.99, 1), (1.01, 0)):  # the biased one is larger by 20/19
        options = config(background_threshold=-2.0, background_mse_threshold=float(factor * mse))
        assert mine(patches, vectors, means, [0], options).kept[0] == kept


def test_attention_of_any_number_of_tags():
    rng = np.random.default_rng(2)
    patches, means = unit_vectors(rng, len(TAGS), PATCHES, WIDTH), 0.5 * unit_vectors(rng, CLASSES, WIDTH)
    means[7] = 0.0  # an empty bank counts as another label of the image, with background 0
    found = unit_vectors(rng, len(TAGS), WIDTH)
    kept = np.array([4, 0, 2, 0, 1, 3], np.float32)  # only looked at where there is one tag
    mined = MinedBackground(jnp.asarray(found), jnp.asarray(kept), jnp.asarray(kept))
    label_means = means[np.maximum(TAGS, 0)]
    s_fg = ca_classifier.bank_scores(jnp.asarray(patches), jnp.asarray(label_means))
    s_bg = ca_classifier.background_scores(jnp.asarray(patches), s_fg, jnp.asarray(TAGS != IGNORE_LABEL), mined)
    ours = ca_classifier.norm(s_fg - s_bg)
    assert np.all(np.isfinite(ours))
    for i, tags in enumerate(TAGS):
        labels = [t for t in tags if t != IGNORE_LABEL]
        for slot, label in enumerate(labels):
            foreground = patches[i] @ means[label]
            others = [patches[i] @ means[o] for o in labels if o != label]
            if len(labels) == 1:
                others = [patches[i] @ found[i]] if kept[i] else [1.0 - foreground]
            expected = standardised(foreground - np.mean(others, axis=0))
            np.testing.assert_allclose(ours[i, slot], expected, atol=2e-5)


def test_the_map_is_enlarged_before_the_sigmoid():
    difference = jnp.zeros((1, 1, 8)).at[0, 0, 7].set(4.0)
    pooling = ca_classifier.attention(difference, jnp.zeros((1, 1, 8)), (1, 8), (1, 16))
    enlarged = upsampling(8, 16)
    weights = 1 / (1 + np.exp(-enlarged @ standardised(np.asarray(difference[0, 0], np.float64))))
    np.testing.assert_allclose(pooling[0, 0], enlarged.T @ weights / 16, atol=1e-6)
    assert weights.max() > 0.9  # a sigmoid before it would be another number


def upsampling(n_in, n_out):
    """The matrix of straight lines between pixel centres."""
    places = (np.arange(n_out) + 0.5) * n_in / n_out - 0.5
    return np.stack([np.interp(places, np.arange(n_in), unit) for unit in np.eye(n_in)], 1)


def test_attention_is_pooled_over_rows_and_columns_alike():
    rng = np.random.default_rng(3)
    s_fg, s_bg = rng.standard_normal((2, 2, 3, 4, 6)).astype(np.float32)
    flat = (jnp.asarray(x.reshape(2, 3, 24)) for x in (s_fg, s_bg))
    pooling = ca_classifier.attention(*flat, (4, 6), (8, 18))
    maps = np.array([[standardised(x) for x in image] for image in s_fg - s_bg])
    enlarged = jax.image.resize(maps, (2, 3, 8, 18), "bilinear")
    expected = pooling_weights(1 / (1 + jnp.exp(-enlarged)), (4, 6))
    np.testing.assert_allclose(pooling, expected, atol=1e-6)


def step_inputs(rng):
    patches = unit_vectors(rng, len(TAGS), PATCHES, WIDTH)
    vectors = unit_vectors(rng, CLASSES, WIDTH)
    rows = rng.permutation(CLASSES + 3)[:CLASSES].astype(np.int32)  # columns are not rows
    bank = MemoryBank.from_slots(jnp.asarray(0.5 * unit_vectors(rng, CLASSES + 3, 2, WIDTH)))
    return patches, vectors, rows, bank.replace(wraps=jnp.asarray(rng.integers(0, 2, CLASSES + 3), jnp.int32))


def pooled(patches, vectors, tags, rows, bank, options, size=(8, 10)):
    grid = jnp.asarray(patches.reshape(-1, *GRID, WIDTH))
    pool = jax.jit(pool_tags, static_argnames=("config", "size"))
    return pool(grid, class_table(vectors), jnp.asarray(tags), jnp.asarray(rows), bank, config=options, size=size)


@pytest.mark.parametrize("seed", range(3))
def test_all_pairs_of_a_step_read_the_bank_before_any_writes(seed):
    patches, vectors, rows, bank = step_inputs(np.random.default_rng([3, seed]))
    tags = np.concatenate([TAGS, TAGS[:, [1, 2, 0]]])  # every class twice in the step
    tags = np.sort(np.where(tags == IGNORE_LABEL, CLASSES, tags), 1)
    tags = np.where(tags == CLASSES, IGNORE_LABEL, tags).astype(np.int32)
    patches = np.concatenate([patches, patches[::-1]])
    options = config(background_mse_threshold=1.5)
    ours = pooled(patches, vectors, tags, rows, bank, options)

    means = np.asarray(bank.slots, np.float64).mean(1)[rows]
    slots, cursor, wraps = (np.array(x) for x in (bank.slots, bank.cursor, bank.wraps))
    for i, image_tags in enumerate(tags):
        maps = attention_in_loops(patches[i], vectors, means, image_tags, options, np.ones(CLASSES))
        for slot, expected in enumerate(maps):
            row = rows[image_tags[slot]]
            np.testing.assert_allclose(ours.attention[i, slot], expected, atol=2e-5)
            assert bool(ours.active[i, slot]) == (int(bank.wraps[row]) >= 1)
            best = np.argsort(-(patches[i] @ vectors[image_tags[slot]]), kind="stable")[:3]
            slots[row, cursor[row]] = patches[i][best].mean(0)
            wraps[row] += cursor[row] == 1
            cursor[row] = (cursor[row] + 1) % 2
        assert not np.any(ours.active[i, len(maps) :])

    pairs = rows[np.maximum(tags, 0)].reshape(-1), ours.features.reshape(-1, WIDTH)
    after = memory_bank.write(bank, jnp.asarray(pairs[0]), pairs[1], jnp.asarray(tags.reshape(-1) >= 0))
    np.testing.assert_allclose(after.slots, slots, atol=1e-6)
    np.testing.assert_array_equal(after.cursor, cursor)
    np.testing.assert_array_equal(after.wraps, wraps)


def test_own_bank_attends_with_the_image_itself():
    patches, vectors, rows, bank = step_inputs(np.random.default_rng(4))
    ours = pooled(patches, vectors, TAGS, rows, bank, config(variant="own_bank"))
    np.testing.assert_array_equal(ours.active, TAGS != IGNORE_LABEL)  # needs no warm-up
    labels = TAGS[0]
    own = {t: patches[0][np.argsort(-(patches[0] @ vectors[t]))[:3]].mean(0) for t in labels}
    for slot, label in enumerate(labels):
        others = [patches[0] @ own[o] for o in labels if o != label]
        expected = standardised(patches[0] @ own[label] - np.mean(others, axis=0))
        np.testing.assert_allclose(ours.attention[0, slot], expected, atol=2e-5)


def test_a_pseudo_region_is_where_the_score_exceeds_mean_plus_std():
    rng = np.random.default_rng(5)
    scores = rng.standard_normal((2, 3, PATCHES)).astype(np.float32)
    scores[0, 0] = 0.3  # flat: no region
    size = (12, 15)
    weights, exists = pseudo_region(jnp.asarray(scores), GRID, size)
    for i, j in np.ndindex(2, 3):
        large = upsampled_in_loops(scores[i, j].reshape(GRID), size)
        region = large > large.mean() + large.std(ddof=1)
        if (i, j) == (0, 0):
            assert not exists[i, j]
            continue
        assert exists[i, j]
        np.testing.assert_array_equal(np.asarray(weights[i, j]) > 0, region)
        # Their mean over the loss grid is the mean over the region.
        np.testing.assert_allclose(weights[i, j], region * region.size / region.sum(), rtol=1e-5)


def test_a_pseudo_region_uses_the_unbiased_deviation():
    scores = jnp.array([0.0, 0.0, 0.9, 1.0]).reshape(1, 1, 4)  # mean + std is 1.025, biased 0.951
    _, exists = pseudo_region(scores, (2, 2), (2, 2))
    assert not exists[0, 0]


def upsampled_in_loops(image, size):
    rows, columns = (
        [min(max((i + 0.5) * a / b - 0.5, 0), a - 1) for i in range(b)] for a, b in zip(image.shape, size, strict=True)
    )
    tall = np.stack([np.interp(rows, range(image.shape[0]), column) for column in image.T], 1)
    return np.stack([np.interp(columns, range(image.shape[1]), row) for row in tall])
