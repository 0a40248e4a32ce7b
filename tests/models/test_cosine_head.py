"""The pieces of the standardisation over classes, one by one, against NumPy over really repeated columns."""

import jax.numpy as jnp
import numpy as np
import pytest

from larvseg_jax.models.cosine_head import column_shares, inverse_std, mean_vector

MULTIPLICITY = np.array([1, 3, 0, 2])


def test_a_column_weighs_as_often_as_it_stands_for():
    share = column_shares(jnp.asarray(MULTIPLICITY, jnp.float32))
    np.testing.assert_allclose(share, [1 / 6, 3 / 6, 0, 2 / 6], rtol=1e-6)


def test_the_mean_vector_is_that_of_all_columns():
    vectors = np.random.default_rng(0).standard_normal((4, 5)).astype(np.float32)
    share = column_shares(jnp.asarray(MULTIPLICITY, jnp.float32))
    expected = np.repeat(vectors, MULTIPLICITY, axis=0).mean(0)
    np.testing.assert_allclose(mean_vector(jnp.asarray(vectors), share), expected, atol=1e-6)


@pytest.mark.parametrize(("variance", "expected"), [(4.0, 0.5), (0.0, 1e5**0.5), (-1e-3, 1e5**0.5), (1e-5, 5e4**0.5)])
def test_inverse_standard_deviation_stays_finite(variance, expected):
    np.testing.assert_allclose(inverse_std(jnp.asarray([variance])), [expected], rtol=1e-5)
