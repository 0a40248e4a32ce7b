"""Resampling matrices against the formulas, one output pixel at a time, and against jax.image.resize."""

import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from PIL import Image

from larvseg_jax.models import resize

SIZES = [(1, 4), (3, 3), (4, 12), (5, 7), (7, 5), (12, 4), (6, 1), (24, 32), (32, 20)]


def linear(x, n_out):
    """Straight lines between pixel centres at i + 1/2, constant beyond the outer ones."""
    n_in = len(x)
    position = [min(max((i + 0.5) * n_in / n_out - 0.5, 0.0), n_in - 1) for i in range(n_out)]
    return np.array([np.interp(p, np.arange(n_in), x) for p in position])


def cubic(x, n_out, a=-0.75):
    """Keys' cubic convolution with the outer pixels repeated."""

    def kernel(t):
        t = abs(t)
        if t <= 1:
            return (a + 2) * t**3 - (a + 3) * t**2 + 1
        return a * (t**3 - 5 * t**2 + 8 * t - 4) if t < 2 else 0.0

    n_in, out = len(x), []
    for i in range(n_out):
        position = (i + 0.5) * n_in / n_out - 0.5
        near = range(math.floor(position) - 3, math.floor(position) + 5)
        out.append(sum(kernel(position - j) * x[min(max(j, 0), n_in - 1)] for j in near))
    return np.array(out)


@pytest.mark.parametrize(("n_in", "n_out"), SIZES)
@pytest.mark.parametrize(("matrix", "formula"), [(resize.bilinear_matrix, linear), (resize.bicubic_matrix, cubic)])
def test_matrices_follow_the_formula(matrix, formula, n_in, n_out):
    x = np.random.default_rng(n_in + n_out).standard_normal(n_in)
    np.testing.assert_allclose(matrix(n_in, n_out) @ x, formula(x, n_out), atol=1e-6)


@pytest.mark.parametrize("matrix", [resize.bilinear_matrix, resize.bicubic_matrix])
def test_matrices_keep_constants_and_cannot_be_changed(matrix):
    np.testing.assert_allclose(matrix(7, 16).sum(1), 1.0, atol=1e-6)
    np.testing.assert_allclose(matrix(5, 5), np.eye(5), atol=1e-6)
    with pytest.raises(ValueError, match="read-only"):
        matrix(7, 16)[0, 0] = 2.0


def test_enlarging_bilinearly_is_that_of_jax():
    maps = jax.random.normal(jax.random.key(0), (2, 5, 8, 3))
    expected = jax.image.resize(maps, (2, 20, 21, 3), "bilinear")
    np.testing.assert_allclose(resize.resize_bilinear(maps, (20, 21)), expected, atol=2e-6)


@pytest.mark.parametrize(("n_in", "n_out"), SIZES)
def test_the_antialiased_bicubic_is_that_of_pillow(n_in, n_out):
    picture = np.random.default_rng(0).standard_normal((n_in, 3)).astype(np.float32)
    expected = Image.fromarray(picture).resize((3, n_out), Image.Resampling.BICUBIC)
    np.testing.assert_allclose(resize.antialiased_bicubic_matrix(n_in, n_out) @ picture, expected, atol=2e-6)


def test_shrinking_does_not_antialias():
    maps = np.random.default_rng(0).standard_normal((9, 12, 2)).astype(np.float32)
    tall = np.apply_along_axis(linear, 0, maps, 4)
    expected = np.apply_along_axis(linear, 1, tall, 5)
    np.testing.assert_allclose(resize.resize_bilinear(jnp.asarray(maps), (4, 5)), expected, atol=1e-6)


def test_enlarging_by_a_whole_factor_keeps_the_mean():
    maps = jax.random.normal(jax.random.key(1), (4, 6, 1))
    large = resize.resize_bilinear(maps, (32, 48))
    np.testing.assert_allclose(jnp.mean(large), jnp.mean(maps), atol=1e-6)


@pytest.mark.parametrize(("n_in", "n_out"), SIZES)
def test_nearest_takes_the_floor(n_in, n_out):
    expected = [math.floor(i * n_in / n_out) for i in range(n_out)]
    np.testing.assert_array_equal(resize.nearest_indices(n_in, n_out), expected)
