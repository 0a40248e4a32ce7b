"""The head's parameters and projections, and the pieces of the standardisation over classes, against NumPy."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from larvseg_jax.models.cosine_head import CosineHead, column_shares, inverse_std, mean_vector

MULTIPLICITY = np.array([1, 3, 0, 2])
WIDTH, CLASSES = 5, 7


@pytest.fixture
def params():
    """Random parameters; no projection is its own transpose."""
    rng = np.random.default_rng(1)
    shapes = {"proj_patch": (WIDTH, WIDTH), "proj_classes": (WIDTH, WIDTH), "class_embeddings": (CLASSES, WIDTH)}
    params = {name: rng.standard_normal(shape).astype(np.float32) for name, shape in shapes.items()}
    return jax.tree.map(jnp.asarray, params | {"gamma": np.float32(1.5), "beta": np.float32(-0.2)})


def projected(vectors, matrix):
    """unit(x W), number by number: output j of a row x is sum_i x_i W_ij."""
    rows, matrix = [], np.float64(matrix)
    for x in np.float64(vectors).reshape(-1, WIDTH):
        y = [sum(x[i] * matrix[i, j] for i in range(WIDTH)) for j in range(WIDTH)]
        rows.append(np.array(y) / np.sqrt(sum(value * value for value in y)))
    return np.array(rows).reshape(vectors.shape)


def test_patch_features_are_projected_and_of_length_one(params):
    features = 3.0 * np.random.default_rng(2).standard_normal((2, 3, 4, WIDTH)).astype(np.float32)
    head = CosineHead(CLASSES, WIDTH)
    ours = head.apply({"params": params}, jnp.asarray(features), method=CosineHead.patches)
    np.testing.assert_allclose(ours, projected(features, params["proj_patch"]), atol=1e-6)


@pytest.mark.parametrize("rows", [None, [6, 0, 3]])
def test_class_vectors_are_the_projected_embeddings_of_their_rows(params, rows):
    chosen = np.asarray(params["class_embeddings"])[list(range(CLASSES)) if rows is None else rows]
    multiplicity = jnp.arange(1.0, 1.0 + len(chosen))
    head = functools.partial(CosineHead(CLASSES, WIDTH).apply, {"params": params}, method=CosineHead.classes)
    table = head(None if rows is None else jnp.asarray(rows), multiplicity)
    np.testing.assert_allclose(table.vectors, projected(chosen, params["proj_classes"]), atol=1e-6)
    np.testing.assert_array_equal(table.multiplicity, multiplicity)
    assert (float(table.gamma), float(table.beta)) == (np.float32(1.5), np.float32(-0.2))


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
