"""The bank against a plain loop: one pair after the other, one slot after the other."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from larvseg_jax.methods.larvseg import memory_bank
from larvseg_jax.methods.larvseg.memory_bank import MemoryBank

CLASSES, SIZE, WIDTH = 5, 3, 4


def started_bank(rng, dtype="float32"):
    """A bank in the middle of a run: rings at any place, class 0 never written."""
    slots = rng.standard_normal((CLASSES, SIZE, WIDTH)).astype(np.float32)
    slots[0] = 0.0
    bank = MemoryBank.from_slots(jnp.asarray(slots, dtype))
    cursor = rng.integers(0, SIZE, CLASSES).astype(np.int32)
    wraps = rng.integers(0, 3, CLASSES).astype(np.int32)
    return bank.replace(cursor=jnp.asarray(cursor), wraps=jnp.asarray(wraps))


def random_pairs(rng, count):
    rows = rng.integers(0, CLASSES, count).astype(np.int32)
    valid = rng.random(count) < 0.8
    return np.where(valid, rows, -1), rng.standard_normal((count, WIDTH)).astype(np.float32), valid


def written_in_sequence(bank, rows, vectors, valid):
    """(slots, cursor, wraps) after writing pair by pair, each into the slot that its class has reached."""
    slots, cursor, wraps = (np.array(x) for x in (bank.slots, bank.cursor, bank.wraps))
    for row, vector, ok in zip(rows, vectors, valid, strict=True):
        if not ok:
            continue
        slots[row, cursor[row]] = vector.astype(slots.dtype)
        if cursor[row] == SIZE - 1:
            wraps[row] += 1
            cursor[row] = 0
        else:
            cursor[row] += 1
    return slots, cursor, wraps


def assert_same(bank, expected):
    slots, cursor, wraps = expected
    np.testing.assert_array_equal(bank.slots, slots)
    np.testing.assert_array_equal(bank.cursor, cursor)
    np.testing.assert_array_equal(bank.wraps, wraps)
    np.testing.assert_allclose(bank.class_mean, np.mean(slots.astype(np.float64), 1), atol=1e-6)


@pytest.mark.parametrize("seed", range(4))
@pytest.mark.parametrize("count", [1, 6, 40])
def test_a_step_writes_as_if_pair_by_pair(seed, count):
    rng = np.random.default_rng([seed, count])
    bank = started_bank(rng)
    write = jax.jit(memory_bank.write)
    for _ in range(3):  # the second and third step go on from where the first one left
        pairs = random_pairs(rng, count)
        expected = written_in_sequence(bank, *pairs)
        bank = write(bank, *map(jnp.asarray, pairs))
        assert_same(bank, expected)


@pytest.mark.parametrize("count", [SIZE, SIZE + 1, 2 * SIZE, 3 * SIZE + 2])
def test_more_pairs_of_a_class_than_slots_keep_the_last(count):
    rng = np.random.default_rng(count)
    bank = started_bank(rng)
    rows = np.full(count, 2, np.int32)
    vectors, valid = rng.standard_normal((count, WIDTH)).astype(np.float32), np.ones(count, bool)
    after = memory_bank.write(bank, jnp.asarray(rows), jnp.asarray(vectors), jnp.asarray(valid))
    assert_same(after, written_in_sequence(bank, rows, vectors, valid))
    held = {tuple(v) for v in np.asarray(after.slots[2])}
    assert held == {tuple(v) for v in vectors[-SIZE:]}
    assert int(after.wraps[2] - bank.wraps[2]) == (int(bank.cursor[2]) + count) // SIZE


def test_invalid_pairs_change_nothing():
    rng = np.random.default_rng(0)
    bank = started_bank(rng)
    rows = jnp.array([-1, 0, CLASSES - 1, 3], jnp.int32)
    vectors = jnp.asarray(rng.standard_normal((4, WIDTH)), jnp.float32)
    after = memory_bank.write(bank, rows, vectors, jnp.zeros(4, bool))
    for now, before in zip(jax.tree.leaves(after), jax.tree.leaves(bank), strict=True):
        np.testing.assert_array_equal(now, before)


@pytest.mark.parametrize("dtype", ["bfloat16", "float16"])
def test_narrow_slots_with_float32_means(dtype):
    rng = np.random.default_rng(1)
    bank = started_bank(rng, dtype)
    pairs = random_pairs(rng, 30)
    after = memory_bank.write(bank, *map(jnp.asarray, pairs))
    assert after.slots.dtype == dtype
    assert after.class_mean.dtype == jnp.float32
    assert_same(after, written_in_sequence(bank, *pairs))


def test_an_empty_bank_is_zero_and_owns_its_buffers():
    bank = MemoryBank.empty(CLASSES, SIZE, WIDTH, "bfloat16")
    assert all(not np.any(np.asarray(x, np.float32)) for x in jax.tree.leaves(bank))
    assert bank.slots.dtype == jnp.bfloat16
    donated = jax.jit(memory_bank.write, donate_argnums=0)  # refuses a buffer that occurs twice
    donated(bank, jnp.array([1]), jnp.ones((1, WIDTH)), jnp.array([True]))


def test_a_bank_is_warm_once_its_ring_was_filled_often_enough():
    bank = MemoryBank.empty(2, SIZE, WIDTH)
    rows = jnp.array([0, 1], jnp.int32)
    for count in range(1, 2 * SIZE + 1):
        bank = memory_bank.write(bank, rows[:1], jnp.ones((1, WIDTH)), jnp.array([True]))
        np.testing.assert_array_equal(bank.is_warm(rows, 0), [True, True])
        np.testing.assert_array_equal(bank.is_warm(rows, 1), [count >= SIZE, False])
        np.testing.assert_array_equal(bank.is_warm(rows, 2), [count >= 2 * SIZE, False])


def test_region_features_are_the_mean_of_the_best_patches():
    rng = np.random.default_rng(2)
    b, p, labels, k = 2, 12, 3, 4
    patches = rng.standard_normal((b, p, WIDTH)).astype(np.float32)
    scores = rng.permuted(np.tile(np.arange(p, dtype=np.float32), (b, labels, 1)), axis=2)
    features, chosen = memory_bank.region_features(jnp.asarray(patches), jnp.asarray(scores), k)
    for i in range(b):
        for j in range(labels):
            best = sorted(range(p), key=lambda q: -scores[i, j, q])[:k]
            np.testing.assert_array_equal(chosen[i, j], best)
            np.testing.assert_allclose(features[i, j], patches[i, best].mean(0), atol=1e-6)


def test_slots_of_means_score_like_all_their_features():
    # Eq. 3 averages the cosines with all M*K features of a class; the bank keeps M vectors.
    rng = np.random.default_rng(3)
    features = rng.standard_normal((SIZE, 6, WIDTH))
    features /= np.linalg.norm(features, axis=-1, keepdims=True)
    pixel = rng.standard_normal(WIDTH)
    pixel /= np.linalg.norm(pixel)
    cosines = [pixel @ feature for slot in features for feature in slot]
    bank = MemoryBank.from_slots(jnp.asarray(features.mean(1)[None], jnp.float32))
    np.testing.assert_allclose(np.asarray(bank.class_mean[0]) @ pixel, np.mean(cosines), atol=1e-6)
