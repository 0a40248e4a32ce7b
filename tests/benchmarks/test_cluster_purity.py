"""Purity of clusters by hand."""

import jax.numpy as jnp
import numpy as np
import pytest

from benchmarks.cluster_purity import blocks, colours, of_pixels, purity


def test_purity_is_the_share_of_each_cluster_s_most_frequent_class():
    clusters = np.array([[0, 0, 0, 2], [0, 2, 2, 2]])
    label = np.array([[1, 1, 0, 3], [-1, 3, 3, 0]])
    assert purity(clusters, label) == pytest.approx((2 + 3) / 7)  # cluster 0: 1, 1, 0; cluster 2: 3, 3, 3, 0
    assert np.isnan(purity(clusters, np.full((2, 4), -1)))


def test_pixels_have_the_cluster_of_the_patch_at_their_centre():
    patches = np.array([[0, 1], [2, 3]])
    # A photo of 4 x 8 pixels, resized to 2 x 4 and cut into patches of 2: a row of two patches.
    np.testing.assert_array_equal(of_pixels(patches, (4, 8), (2, 4), 2), [[0] * 4 + [1] * 4] * 4)


def test_blocks_cover_the_grid():
    found = blocks((4, 4), 4)
    np.testing.assert_array_equal(found, [[0, 0, 1, 1], [0, 0, 1, 1], [2, 2, 3, 3], [2, 2, 3, 3]])


def test_patches_of_one_colour_are_one_cluster():
    window = np.zeros((1, 8, 8, 3), np.float32)
    window[:, :, 4:] = (1, 0, 2)
    found = np.asarray(colours(jnp.asarray(window), 4, 2))[0]
    assert found[0, 0] == found[1, 0] != found[0, 1] == found[1, 1]
