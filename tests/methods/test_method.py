"""The two ways to score classes are one to those who look for the best of many."""

import jax.numpy as jnp
import numpy as np
import pytest

from larvseg_jax.methods.method import Dense, Linear, Vectors, as_linear
from larvseg_jax.vocabulary import Vocabulary

LABEL_SET = Vocabulary(tuple("abcd"), base=(), novel=()).label_set("dbbc")  # b counts twice


def dense_scores(params, memory, images):
    """Some number for every class, from all that a scorer may read."""
    classes = jnp.arange(len(LABEL_SET), dtype="float32")
    means = images.reshape(len(images), 2, 4, 2, 4, 3).mean((2, 4, 5))
    return jnp.sin(params * means[..., None] + memory * classes[None, None, None])


@pytest.mark.parametrize("reads_memory", [False, True])
def test_any_scorer_is_a_linear_one_with_the_same_scores(reads_memory):
    scorer = as_linear(Dense(dense_scores, reads_memory=reads_memory), LABEL_SET)
    params, memory = jnp.float32(3.0), jnp.float32(0.7)
    images = jnp.asarray(np.random.default_rng(0).standard_normal((2, 8, 8, 3)), jnp.float32)
    expected = dense_scores(params, memory, images)
    classes = scorer.vectors(params, memory)
    features = scorer.features(params, memory, classes, images)
    np.testing.assert_allclose(jnp.einsum("bhwd,nd->bhwn", features, classes.vectors) + classes.offset, expected)
    np.testing.assert_array_equal(scorer.scores(params, memory, images), expected)
    np.testing.assert_array_equal(classes.multiplicity, [1, 2, 1])
    assert isinstance(scorer, Linear)
    assert scorer.reads_memory == reads_memory


def test_a_linear_scorer_stays_what_it_is():
    def vectors(params, memory):
        return Vectors(jnp.ones((3, 5)), jnp.ones(3), jnp.zeros(()))

    scorer = Linear(dense_scores, vectors, lambda *_: jnp.ones((2, 2, 2, 5)))
    assert as_linear(scorer, LABEL_SET) is scorer
