"""Maps and masks at points against SciPy's interpolation; labels of a picture; the least certain points."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
from scipy import ndimage

from larvseg_jax.methods.cel import points
from larvseg_jax.vocabulary import IGNORE_LABEL

RNG = np.random.default_rng(0)


def interpolated(image, at):
    """Bilinear with zeros around, at (x, y) in [0, 1]."""
    y, x = at[:, 1] * image.shape[0] - 0.5, at[:, 0] * image.shape[1] - 0.5
    return ndimage.map_coordinates(image.astype(np.float64), [y, x], order=1, mode="grid-constant")


def drawn(*shape):
    """Random points, the corners and the middle of a border among them."""
    at = RNG.uniform(size=(*shape, 2)).astype(np.float32)
    at[..., :4, :] = [[0, 0], [1, 1], [1, 0], [0.5, 0]]
    return at


def test_maps_at_points():
    maps, at = RNG.normal(size=(2, 3, 4, 5, 6)).astype(np.float32), drawn(2, 3, 20)
    found = jax.jit(points.sample_maps)(jnp.asarray(maps), jnp.asarray(at))
    expected = [[[interpolated(m, at[o, b]) for m in maps[o, b]] for b in range(3)] for o in range(2)]
    np.testing.assert_allclose(found, expected, atol=2e-6)


def test_features_at_points():
    features, at = RNG.normal(size=(2, 5, 6, 3)).astype(np.float32), drawn(2, 20)
    found = jax.jit(points.sample_features)(jnp.asarray(features), jnp.asarray(at))
    expected = [[interpolated(features[b, ..., e], at[b]) for e in range(3)] for b in range(2)]
    np.testing.assert_allclose(found, np.moveaxis(expected, 1, 2), atol=2e-6)


def test_maps_at_points_of_their_own():
    """By gathers, and by the products that TPUs have; gradients, too."""
    maps, at = RNG.normal(size=(2, 3, 5, 6)).astype(np.float32), drawn(2, 3, 20)

    def squares(sample, maps):
        found = sample(maps, jnp.asarray(at))
        return jnp.sum(found**2), found

    expected = [[interpolated(m, at[b, k]) for k, m in enumerate(of)] for b, of in enumerate(maps)]
    ways = (points.sample_own, points.by_products)
    of_ways = jax.jit(lambda maps: [jax.grad(functools.partial(squares, way), has_aux=True)(maps) for way in ways])
    (gathered, found), (multiplied, product) = of_ways(jnp.asarray(maps))
    np.testing.assert_allclose(found, expected, atol=2e-6)
    np.testing.assert_allclose(product, expected, atol=2e-6)
    np.testing.assert_allclose(gathered, multiplied, atol=1e-5)
    # Of squares of what is linear in the maps, the derivative along the maps is twice the sum itself.
    np.testing.assert_allclose(jnp.sum(gathered * maps), 2 * np.sum(np.square(expected)), rtol=1e-5)


def test_masks_at_points_are_the_maps_of_each_label():
    label = RNG.integers(-1, 4, size=(2, 5, 7))
    assert (label == IGNORE_LABEL).any()
    labels = np.array([[3, 0, IGNORE_LABEL], [1, 2, 0]])
    label, labels = label.astype(np.int32), labels.astype(np.int32)
    at = drawn(3, 2, 3, 20)  # outputs, pictures, masks
    both = jnp.broadcast_to(jnp.asarray(labels)[None], (3, 2, 3))

    def expected(o, b, k, shared):
        mask = (label[b] == labels[b, k]) & (labels[b, k] != IGNORE_LABEL)
        return interpolated(mask, at[o, b, 0 if shared else k])

    for shared in (False, True):
        given = at[:, :, :1] if shared else at
        found = jax.jit(points.sample_masks)(jnp.asarray(label), both, jnp.asarray(given))
        ours = [[[expected(o, b, k, shared) for k in range(3)] for b in range(2)] for o in range(3)]
        np.testing.assert_allclose(found, ours, atol=2e-6)
        product = jax.jit(points._masks_by_products)(jnp.asarray(label), both, jnp.asarray(given))
        np.testing.assert_allclose(product, ours, atol=2e-6)


def test_points_on_pixels_with_a_label():
    label, at = RNG.integers(-1, 2, size=(2, 5, 7)).astype(np.int32), drawn(3, 2, 1, 20)
    found = jax.jit(points.sample_labelled)(jnp.asarray(label), jnp.asarray(at))
    ours = [[[interpolated(label[b] != IGNORE_LABEL, at[o, b, 0])] for b in range(2)] for o in range(3)]
    np.testing.assert_allclose(found, ours, atol=2e-6)


def test_the_labels_of_a_picture_are_those_of_the_most_pixels():
    first = [[2, 2, 2], [0, 0, IGNORE_LABEL], [5, IGNORE_LABEL, IGNORE_LABEL]]
    label = jnp.asarray([first, np.full((3, 3), IGNORE_LABEL)], jnp.int32)
    nothing = [IGNORE_LABEL] * 7
    labels_in = jax.jit(points.labels_in, static_argnums=(1, 2))
    assert labels_in(label, 6, 7).tolist() == [[2, 0, 5, *nothing[:4]], nothing]
    assert labels_in(label, 6, 2).tolist() == [[2, 0], nothing[:2]]


def test_the_least_certain_candidates_and_some_points_anywhere():
    logits, candidates, anywhere = RNG.normal(size=(2, 4, 5)).astype(np.float32), drawn(2, 30), drawn(2, 4)
    given = [jnp.asarray(x) for x in (logits, candidates, anywhere)]
    chosen = jax.jit(lambda *given: points.least_certain_points(*given, 10))
    found = np.asarray(chosen(*given))
    for i in range(2):
        order = np.argsort(np.abs(interpolated(logits[i], candidates[i])))[:6]
        np.testing.assert_array_equal(found[i, :6], candidates[i][order])
        np.testing.assert_array_equal(found[i, 6:], anywhere[i])
    values, at = jnp.asarray(RNG.permutation(30) - 14.5, jnp.float32)[None], given[1][:1]  # as TPUs have it
    both = [jax.jit(way, static_argnums=2)(values, at, 6) for way in (points.sorted_to_zero, points.nearest_to_zero)]
    assert np.unique(np.abs(values)).size == 15
    np.testing.assert_array_equal(*both)
    gradient = jax.grad(lambda x: jnp.sum(chosen(x, *given[1:])))(given[0])
    assert not np.any(gradient)
