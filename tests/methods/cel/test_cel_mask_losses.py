"""Losses of pairs of masks, and of classes with one for "no object", against their formulas."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy.special import expit, log_softmax

from larvseg_jax.methods.cel import mask_losses
from larvseg_jax.vocabulary import IGNORE_LABEL

RNG = np.random.default_rng(2)
LOGITS, TARGETS = RNG.normal(size=(2, 3, 2, 8)) * 3, RNG.uniform(size=(2, 3, 2, 8))
WEIGHTS = {"all alike": np.ones((2, 3, 2, 8)), "some": RNG.integers(0, 3, (2, 3, 2, 8)) / 2}
MATCHED = np.array([[[1, 1], [1, 0], [0, 0]], [[1, 0], [0, 0], [0, 0]]], bool)


def by_hand(kind, o, weight):
    s, y, w = expit(LOGITS[o]), TARGETS[o], weight[o]
    pixel = -(y * np.log(s) + (1 - y) * np.log(1 - s))
    if kind == "focal":
        pixel *= (1 - (s * y + (1 - s) * (1 - y))) ** 2 * (0.25 * y + 0.75 * (1 - y))
    dice = 1 - (2 * np.sum(w * s * y, -1) + 1) / (np.sum(w * s, -1) + np.sum(w * y, -1) + 1)
    return np.mean(np.average(pixel, -1, w)[MATCHED[o]]), np.mean(dice[MATCHED[o]])


@pytest.mark.parametrize(("kind", "weights"), [("ce", "all alike"), ("focal", "all alike"), ("ce", "some")])
def test_mean_over_the_pairs_of_all_pictures(kind, weights):
    given = jnp.asarray(LOGITS, jnp.float32), jnp.asarray(TARGETS, jnp.float32)
    weight = None if weights == "all alike" else jnp.asarray(WEIGHTS[weights], jnp.float32)
    losses = jax.jit(lambda *given: mask_losses.mask_losses(*given, kind, weight))
    found = losses(*given, jnp.asarray(MATCHED))
    for o in range(2):
        np.testing.assert_allclose([found.ce[o], found.dice[o]], by_hand(kind, o, WEIGHTS[weights]), rtol=1e-5)
    nothing = losses(*given, jnp.zeros(MATCHED.shape, bool))
    assert not np.any(nothing.ce)
    assert not np.any(nothing.dice)


def test_classes_with_no_object():
    logits = RNG.normal(size=(2, 3, 4, 6))
    label = np.full((2, 3, 4), IGNORE_LABEL)
    label[0, 0, :2], label[1, 1, 3], label[:, 2] = [3, 0], 4, 1
    counted = np.array([True, True, False])
    arguments = jnp.asarray(logits, jnp.float32), jnp.asarray(label), jnp.asarray(counted)
    loss = jax.jit(lambda *given: mask_losses.no_object_loss(*given, 0.1))
    found = loss(*arguments)
    for o in range(2):
        total = weights = 0.0
        for b, q in np.ndindex(2, 4):  # the third picture only fills up
            none = label[o, b, q] == IGNORE_LABEL
            weight = 0.1 if none else 1.0
            total -= weight * log_softmax(logits[o, b, q])[5 if none else label[o, b, q]]
            weights += weight
        assert float(found[o]) == pytest.approx(total / weights, rel=1e-5)
    assert not np.any(loss(*arguments[:2], jnp.zeros(3, bool)))
