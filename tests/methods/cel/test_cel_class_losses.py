"""L_class and L_rank against sums written out query by query and class by class."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy.special import log_softmax

from larvseg_jax.methods.cel import class_losses
from larvseg_jax.methods.cel.class_losses import ClassLoss, RankLoss
from larvseg_jax.vocabulary import IGNORE_LABEL

RNG = np.random.default_rng(3)
NONE = IGNORE_LABEL
COSINES = RNG.uniform(-1, 1, size=(2, 4, 5, 6)).astype(np.float32)  # outputs, pictures, queries, classes
TAU = 0.2
LABELS = np.array([[2, 0, NONE], [5, NONE, NONE], [NONE, NONE, NONE], [1, 3, 4]])  # the third has none
SAID = np.full((2, 4, 5), NONE)
SAID[0, 0, [1, 4]], SAID[0, 1, 2], SAID[1, 0, [0, 3]], SAID[1, 1, 2] = [0, 2], 5, [2, 0], 5
SAID[:, 3] = 1
COUNTED = np.array([True, True, True, False])  # the fourth only fills up


def class_loss_by_hand(reduction, kl, share, o):
    entropies, divergences = [], []
    for b, q in np.ndindex(3, 5):
        log_p = log_softmax(COSINES[o, b, q].astype(np.float64) / TAU)
        if SAID[o, b, q] != NONE:
            entropies.append(-log_p[SAID[o, b, q]])
        elif kl == "p_u":
            divergences.append(np.sum(np.exp(log_p) * (log_p - np.log(1 / 6))))
        else:
            divergences.append(np.sum(1 / 6 * (np.log(1 / 6) - log_p)))
    if reduction == "split":
        return share * np.mean(entropies) + (1 - share) * np.mean(divergences)
    total = share * np.sum(entropies) + (1 - share) * np.sum(divergences)
    shares = share * len(entropies) + (1 - share) * len(divergences)
    return total / {"sum": 3, "weighted": shares, "mean": 15}[reduction]


FORMS = [(reduction, kl) for reduction in ("split", "sum", "weighted", "mean") for kl in ("p_u", "u_p")]


@jax.jit
def class_loss_in_all_forms(cosines, said, counted):
    """One value a form, and the gradient of their sum."""

    def losses(cosines):
        found = [class_losses.class_loss(cosines / TAU, said, counted, ClassLoss(0.7, *form)) for form in FORMS]
        return sum(map(jnp.sum, found)), found

    return jax.grad(losses, has_aux=True)(cosines)


def test_class_loss():
    _, found = class_loss_in_all_forms(*map(jnp.asarray, (COSINES, SAID, COUNTED)))
    for form, values in zip(FORMS, found, strict=True):
        np.testing.assert_allclose(values, [class_loss_by_hand(*form, 0.7, o) for o in range(2)], 1e-5, err_msg=form)


@pytest.mark.parametrize("without", ["pictures", "labels"])
def test_class_loss_of_nothing(without):
    said = np.full_like(SAID, NONE) if without == "labels" else SAID
    counted = np.zeros_like(COUNTED) if without == "pictures" else COUNTED
    gradient, found = class_loss_in_all_forms(*map(jnp.asarray, (COSINES, said, counted)))
    assert np.all(np.isfinite(gradient))
    assert np.all(np.isfinite(found))
    assert np.any(found) == (without == "labels")


def rank_loss_by_hand(normalise, scale, o):
    total = 0.0
    for b in range(2):  # the third picture adds 0
        best = COSINES[o, b].astype(np.float64).max(0) / (TAU if scale == "temperature" else 1)
        present = [c for c in LABELS[b] if c != NONE]
        absent = [c for c in range(6) if c not in present]
        pairs = sum(np.log1p(np.exp(best[k] - best[j])) for j in present for k in absent)
        total += pairs / (len(present) * (len(absent) if normalise == "pairs" else 1))
    return total / 3


def test_rank_loss():
    forms = [(normalise, scale) for normalise in ("positives", "pairs") for scale in ("cosine", "temperature")]

    @jax.jit
    def in_all_forms(cosines, labels, counted):
        return [class_losses.rank_loss(cosines, labels, counted, RankLoss(*form), TAU) for form in forms]

    for form, values in zip(forms, in_all_forms(*map(jnp.asarray, (COSINES, LABELS, COUNTED))), strict=True):
        np.testing.assert_allclose(values, [rank_loss_by_hand(*form, o) for o in range(2)], 1e-5, err_msg=form)


def test_only_one_best_query_of_a_class_learns_from_its_rank():
    alike = jnp.asarray(np.repeat(COSINES[0, :1, :1], 5, axis=1))
    gradient = jax.grad(lambda r: jnp.sum(class_losses.best_similarity(r)))(alike)
    assert np.asarray(gradient)[0].tolist() == [[1.0] * 6, *[[0.0] * 6] * 4]


@pytest.mark.parametrize("kl", ["p_u", "u_p"])
def test_nothing_is_nearer_to_uniform_than_uniform(kl):
    assert float(class_losses.divergence_from_uniform(jnp.full(6, 3.0), kl)) == pytest.approx(0, abs=1e-6)
    certain = jnp.asarray([50.0, 0, 0, 0, 0, 0])
    limit = np.log(6) if kl == "p_u" else 50 * 5 / 6 - np.log(6)
    assert float(class_losses.divergence_from_uniform(certain, kl)) == pytest.approx(limit, rel=1e-5)
