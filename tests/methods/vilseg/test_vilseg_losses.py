"""The losses where the goldens do not look: rows that only fill up, limits."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from larvseg_jax.methods import contrastive
from larvseg_jax.methods.vilseg import clusters, vision
from larvseg_jax.models.clip import contrastive_logits

RNG = np.random.default_rng(0)


def normal(*shape):
    return jnp.asarray(RNG.normal(size=shape).astype(np.float32))


def filled(x, rows=2):
    """With further rows along the first axis, of numbers that must not matter."""
    return jnp.concatenate([x, 50 * normal(rows, *x.shape[1:])])


COUNTED = jnp.arange(6) < 4


def cross_of(images, texts, counted, symmetric):
    logits = contrastive_logits(images, texts, jnp.asarray(7.0))
    return contrastive.contrastive_loss(logits, counted, symmetric=symmetric)


@pytest.mark.parametrize("symmetric", [False, True])
def test_rows_that_fill_up_count_nowhere_in_the_contrastive_loss(symmetric):
    images, texts = normal(4, 5), normal(4, 5)
    alone = cross_of(images, texts, jnp.ones(4, bool), symmetric)
    assert cross_of(filled(images), filled(texts), COUNTED, symmetric) == pytest.approx(float(alone), rel=1e-6)


def test_rows_that_fill_up_count_nowhere_in_the_other_losses():
    logits, views, center = normal(4, 7), normal(3, 4, 7), normal(7)
    target = vision.targets(logits, center, "centered", 0.04)
    more = vision.targets(filled(logits), center, "centered", 0.04)
    padded = jnp.stack([filled(view) for view in views])
    alone = vision.vision_loss(target, views, jnp.ones(4, bool), 0.1)
    assert vision.vision_loss(more, padded, COUNTED, 0.1) == pytest.approx(float(alone), rel=1e-6)
    np.testing.assert_allclose(
        vision.next_center(center, filled(logits), COUNTED, 0.9),
        0.9 * np.asarray(center) + 0.1 * np.asarray(logits).mean(0),
        atol=1e-6,
    )
    a, b = normal(4, 2, 2, 3), normal(4, 2, 2, 3)
    alone, _ = clusters.cluster_loss(a, b, jnp.ones((4, 2, 2)))
    weights = jnp.broadcast_to(COUNTED[:, None, None], (6, 2, 2)).astype(jnp.float32)
    assert clusters.cluster_loss(filled(a), filled(b), weights)[0] == pytest.approx(float(alone), rel=1e-5)


def test_nothing_that_counts_changes_nothing():
    center, none = normal(7), jnp.zeros(4, bool)
    np.testing.assert_array_equal(vision.next_center(center, normal(4, 7), none, 0.9), center)
    for loss in (
        cross_of(normal(4, 5), normal(4, 5), none, True),
        vision.vision_loss(jax.nn.softmax(normal(4, 7)), normal(3, 4, 7), none, 0.1),
        clusters.cluster_loss(normal(4, 3), normal(4, 3), jnp.zeros(4))[0],
    ):
        assert float(loss) == pytest.approx(0, abs=1e-6)


def test_retrieval_at_1():
    cosine = jnp.asarray([[0.9, 0.1, 1.0], [0.5, 0.2, 1.0], [0.0, 0.0, 0.0]])
    assert contrastive.retrieved(cosine, jnp.asarray([True, True, False])) == 0.5


@pytest.mark.parametrize("count", [2, 5])
def test_mutual_information_of_hard_clusters(count):
    """ln C where each is used alike; 0 where all is in one."""
    hard = 200.0 * jnp.eye(count)
    assert clusters.cluster_loss(hard, hard, jnp.ones(count))[0] == pytest.approx(-np.log(count), rel=1e-5)
    one = jnp.broadcast_to(hard[:1], hard.shape)
    loss, gradient = jax.value_and_grad(lambda x: clusters.cluster_loss(x, x, jnp.ones(count))[0])(one)
    assert float(loss) == pytest.approx(0, abs=1e-6)
    assert np.isfinite(gradient).all()


def test_information_of_each_picture():
    """Clusters of whole pictures tell nothing of a picture's patches, and all there is of the batch's."""
    a, b = normal(5, 3, 2, 4), normal(5, 3, 2, 4)
    alone = [clusters.cluster_loss(a[i], b[i], jnp.ones((3, 2))) for i in range(4)]
    weights = jnp.ones((5, 3, 2)).at[4].set(0)  # one that only fills up
    loss, joint = clusters.cluster_loss(a, b, weights, over="picture")
    assert float(loss) == pytest.approx(float(np.mean([loss for loss, _ in alone])), rel=1e-5)
    np.testing.assert_allclose(joint, np.mean([joint for _, joint in alone], 0), rtol=1e-5)
    of_pictures = jnp.broadcast_to(200.0 * jnp.eye(4)[:, None, None], (4, 3, 2, 4))
    for over, expected in (("batch", -np.log(4)), ("picture", 0)):
        loss, _ = clusters.cluster_loss(of_pictures, of_pictures, jnp.ones((4, 3, 2)), over=over)
        assert float(loss) == pytest.approx(expected, abs=1e-5)


def test_entropy():
    assert vision.entropy(jnp.asarray([0.5, 0.5, 0.0])) == pytest.approx(np.log(2))


def test_clusters_are_counted_in_each_picture():
    hard = np.zeros((2, 2, 2, 4), np.float32)
    for place, cluster in zip(np.ndindex(2, 2, 2), (0, 0, 0, 0, 1, 3, 3, 2), strict=True):
        hard[place][cluster] = 1
    np.testing.assert_array_equal(clusters.clusters_in_each(jnp.asarray(hard)), [1, 3])
