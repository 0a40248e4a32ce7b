"""Ensembles where the goldens do not look: open vocabularies, and proposals without a crop."""

import jax.numpy as jnp
import numpy as np
from scipy.special import expit, softmax

from larvseg_jax.methods.cel import inference

RNG = np.random.default_rng(4)
OWN, CLIP = (softmax(RNG.normal(size=(2, 3, 4)), -1) for _ in range(2))
VALID = np.array([[1, 0, 1], [1, 1, 0]], bool)
SEEN = np.array([1, 0, 1, 0], bool)


def given(*arrays):
    return [jnp.asarray(x, jnp.float32) if x.dtype != bool else jnp.asarray(x) for x in arrays]


def test_scores_of_pixels():
    masks = RNG.normal(size=(2, 3, 5, 6))
    found = inference.semantic_scores(*given(OWN, masks))
    np.testing.assert_allclose(found, np.einsum("bqc,bqhw->bhwc", OWN, expit(masks)), rtol=1e-5)


def test_xu():
    found = inference.simple_ensemble(*given(OWN, CLIP, VALID, SEEN), 0.7)
    found = np.asarray(found)
    for b, q, c in np.ndindex(2, 3, 4):
        own = 0.7 if SEEN[c] else 0.3
        clip = CLIP[b, q, c] if VALID[b, q] else 1.0
        np.testing.assert_allclose(found[b, q, c], OWN[b, q, c] ** own * clip ** (1 - own), rtol=1e-5)


def test_zegformer_of_an_open_vocabulary():
    """Without seen classes there is no mean of theirs."""
    none = np.zeros(4, bool)
    found = inference.zegformer_ensemble(*given(OWN, CLIP, np.ones_like(VALID), none))
    np.testing.assert_allclose(found, OWN ** (1 / 3) * CLIP ** (2 / 3), rtol=1e-5)
    np.testing.assert_array_equal(inference.zegformer_calibrated(found, jnp.asarray(none)), found)
