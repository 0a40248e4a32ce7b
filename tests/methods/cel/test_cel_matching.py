"""Assignments against SciPy's, costs against their formulas pair by pair."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy.optimize import linear_sum_assignment
from scipy.special import expit, log_softmax, softmax

from larvseg_jax.methods.cel import matching
from larvseg_jax.vocabulary import IGNORE_LABEL

RNG = np.random.default_rng(1)
PRESENT = np.array([[1, 1, 1, 1], [0, 1, 0, 1], [0, 0, 0, 0], [1, 1, 1, 0]], bool)

match = jax.jit(matching.match)


def costs_and_pairs(queries):
    """Costs of (2 outputs, 4 pictures), those of absent labels tempting; what we match, and SciPy without these."""
    cost = RNG.normal(size=(2, 4, queries, 4)).astype(np.float32) + 3
    cost = np.where(PRESENT[None, :, None], cost, -50).astype(np.float32)
    present = np.broadcast_to(PRESENT, (2, 4, 4))
    found = jax.tree.map(np.asarray, match(jnp.asarray(cost), jnp.asarray(present)))
    for at in np.ndindex(2, 4):
        real = np.flatnonzero(present[at])
        rows, columns = linear_sum_assignment(cost[at][:, real])
        yield found.query[at], found.matched[at], dict(zip(real[columns].tolist(), rows.tolist(), strict=True))


@pytest.mark.parametrize("queries", [6, 3])  # more than labels, and fewer
def test_pairs_of_the_least_total_cost(queries):
    for query, matched, expected in costs_and_pairs(queries):
        assert {k: int(query[k]) for k in range(4) if matched[k]} == expected


def test_costs_that_are_no_numbers_end():
    """A training that diverged reaches the check that says so."""
    cost = np.full((2, 4, 6, 4), np.nan, np.float32)
    cost[1, 1] = np.inf
    cost[1, 2] = RNG.normal(size=(6, 4))
    cost[1, 2, 0, 0] = np.nan
    found = match(jnp.asarray(cost), jnp.ones((2, 4, 4), bool))
    assert np.all(found.matched)
    assert np.all(np.sort(found.query, axis=-1)[..., :-1] < np.sort(found.query, axis=-1)[..., 1:])


def test_labels_and_vectors_of_matched_queries():
    pairs = matching.Matching(jnp.asarray([[[4, 0, 2]], [[1, 3, 4]]]), jnp.asarray([[[True, True, False]]] * 2))
    labels = jnp.asarray([[7, 5, IGNORE_LABEL]])
    none = IGNORE_LABEL
    assert matching.label_of_query(pairs, labels, 5).tolist() == [
        [[5, none, none, none, 7]],
        [[none, 7, none, 5, none]],
    ]
    vectors = jnp.arange(2 * 5 * 2.0).reshape(2, 1, 5, 2)
    assert matching.of_matched(vectors, pairs)[1, 0].tolist() == [[12.0, 13.0], [16.0, 17.0], [18.0, 19.0]]


@pytest.mark.parametrize("weighted", [False, True])
def test_cost_of_masks(weighted):
    logits, targets = RNG.normal(size=(2, 5, 9)) * 3, RNG.uniform(size=(2, 3, 9))
    weight = RNG.integers(0, 3, (2, 1, 9)) / 2 if weighted else np.ones((2, 1, 9))
    given = jnp.asarray(weight, jnp.float32) if weighted else None
    cost = jax.jit(lambda *arrays: matching.mask_cost(*arrays, ce=5.0, dice=2.0, weight=given))
    found = np.asarray(cost(*(jnp.asarray(x, jnp.float32) for x in (logits, targets))))
    for b, q, k in np.ndindex(2, 5, 3):
        s, y, w = expit(logits[b, q]), targets[b, k], weight[b, 0]
        entropy = -np.average(y * np.log(s) + (1 - y) * np.log(1 - s), weights=w)
        dice = 1 - (2 * np.sum(w * s * y) + 1) / (np.sum(w * s) + np.sum(w * y) + 1)
        assert float(found[b, q, k]) == pytest.approx(5 * entropy + 2 * dice, rel=1e-5)


@pytest.mark.parametrize("kind", ["similarity", "probability", "log_probability"])
def test_cost_of_classes(kind):
    cosines = RNG.uniform(-1, 1, size=(2, 2, 5, 6))
    labels = np.array([[3, 0, IGNORE_LABEL], [5, 1, 2]])
    cost = jax.jit(lambda r, labels: matching.class_cost(matching.fitness(r, kind, 0.1), labels))
    found = np.asarray(cost(jnp.asarray(cosines, jnp.float32), jnp.asarray(labels)))
    expected = {"similarity": cosines, "probability": softmax(cosines / 0.1, -1)}
    values = expected.get(kind, log_softmax(cosines / 0.1, -1))
    for o, b, q, k in np.ndindex(2, 2, 5, 3):
        label = labels[b, k]
        wanted = 0.0 if label == IGNORE_LABEL else -values[o, b, q, label]
        assert float(found[o, b, q, k]) == pytest.approx(wanted, rel=1e-5, abs=1e-6)
