"""Clusters become regions and regions classes: against sums by hand."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from larvseg_jax.methods.vilseg import kmeans, regions
from larvseg_jax.models.resize import resize_bilinear


def picture(height=4, width=5, clusters=6, classes=3, dim=8):
    """Patches, cluster logits of which cluster 2 wins nowhere, texts."""
    rng = np.random.default_rng(0)
    pixels, logits, texts = (
        rng.normal(size=shape).astype(np.float32)
        for shape in ((1, height, width, dim), (1, height, width, clusters), (classes, dim))
    )
    logits[..., 2] = -9.0
    return jnp.asarray(pixels), jnp.asarray(logits), jnp.asarray(texts)


def by_hand(pixels, logits, texts):
    """The class of every patch."""
    pixels, logits, texts = np.asarray(pixels)[0], np.asarray(logits)[0], np.asarray(texts)
    winners, classes = logits.argmax(-1), np.zeros(logits.shape[:2], int)
    for cluster in np.unique(winners):
        mean = pixels[winners == cluster].mean(0)
        cosine = texts @ mean / np.linalg.norm(texts, axis=1) / np.linalg.norm(mean)
        classes[winners == cluster] = cosine.argmax()
    return classes


@pytest.mark.parametrize("upsample", ["logits", "labels"])
def test_the_highest_score_is_the_class_of_the_region(upsample):
    pixels, logits, texts = picture()
    found = regions.regions_of(pixels, logits)
    scores = regions.class_scores(logits, found, regions.region_cosines(found, texts), upsample)
    assert scores.shape == (1, 4, 5, 3)
    np.testing.assert_array_equal(np.argmax(scores[0], -1), by_hand(pixels, logits, texts))


def test_a_cluster_without_patches_has_no_class():
    pixels, logits, texts = picture()
    found = regions.regions_of(pixels, logits)
    classes = regions.region_classes(found, regions.region_cosines(found, texts))
    assert classes[0, 2] == regions.NO_CLASS
    np.testing.assert_array_equal(classes[0] == regions.NO_CLASS, found.counts[0] == 0)
    assert np.asarray(regions.occupied(logits, found)[..., 2] < logits.min(-1)).all()


def test_a_class_without_clusters_is_below_all():
    """The last class, too, whatever the clusters without patches hold."""
    pixels, logits, _ = picture()
    found = regions.regions_of(pixels, logits)
    cosines = jnp.zeros((1, 6, 3)).at[..., 1].set(1.0)
    logits = logits.at[..., 2].set(logits[..., 2] + 8.9)  # no patch is in it still, as `found` has it
    scores = np.asarray(regions.class_scores(logits, found, cosines, "logits"))
    for column in (0, 2):
        np.testing.assert_allclose(scores[..., column], np.asarray(logits.min(-1)) - 1, rtol=1e-6)


def test_resized_scores_are_the_clusters_resized_where_classes_have_one_cluster_each():
    pixels, logits, _ = picture()
    found = regions.regions_of(pixels, logits)
    texts = jnp.where(found.counts[0, :, None] > 0, found.means[0], -1.0)  # each region its own class
    cosines = regions.region_cosines(found, texts)
    classes = regions.region_classes(found, cosines)[0]
    np.testing.assert_array_equal(classes, [0, 1, -1, 3, 4, 5])
    scores = regions.class_scores(logits, found, cosines, "logits")
    exact = jnp.argmax(resize_bilinear(regions.occupied(logits, found)[0], (16, 20)), -1)
    np.testing.assert_array_equal(jnp.argmax(resize_bilinear(scores[0], (16, 20)), -1), classes[exact])


def test_kmeans_finds_far_groups():
    rng = np.random.default_rng(1)
    middles = 20 * rng.normal(size=(4, 6)).astype(np.float32)
    points = jnp.asarray(np.repeat(middles, 25, 0) + 0.1 * rng.normal(size=(100, 6)).astype(np.float32))
    for seed in range(5):
        centres = kmeans.kmeans(jax.random.key(seed), points, 4)
        groups = np.asarray(jnp.argmax(kmeans.closeness(points, centres), -1)).reshape(4, 25)
        assert (groups == groups[:, :1]).all()
        assert len(set(groups[:, 0])) == 4
        np.testing.assert_allclose(np.asarray(centres)[groups[:, 0]], middles, atol=0.2)


def test_kmeans_of_fewer_different_points_than_clusters():
    points = jnp.broadcast_to(jnp.arange(1.0, 3.0)[:, None, None], (2, 5, 3)).reshape(10, 3)
    centres = kmeans.kmeans(jax.random.key(0), points, 4)
    assert np.isfinite(centres).all()
    assert {1.0, 2.0} == set(np.unique(centres).tolist())  # one that has lost all its points stays where it was


def test_the_nearest_centre_is_the_closest():
    rng = np.random.default_rng(1)
    points, centres = (jnp.asarray(rng.normal(size=(n, 3)).astype(np.float32)) for n in (20, 4))
    distance = np.linalg.norm(np.asarray(points)[:, None] - np.asarray(centres)[None], axis=-1)
    np.testing.assert_array_equal(jnp.argmax(kmeans.closeness(points, centres), -1), distance.argmin(1))
