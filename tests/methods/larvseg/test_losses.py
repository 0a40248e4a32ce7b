"""The losses against a direct form that builds every pixel's logits, written from the formulas."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from larvseg_jax.methods.larvseg import losses
from larvseg_jax.methods.larvseg.loss_grid import everywhere, pooling_weights
from larvseg_jax.models.cosine_head import ClassTable, standardised_logits
from larvseg_jax.vocabulary import IGNORE_LABEL

GRID, SIZE, WIDTH, CLASSES = (3, 4), (6, 12), 5, 7
TAGS = np.array([[1, 3, 6], [2, IGNORE_LABEL, IGNORE_LABEL], [0, 4, IGNORE_LABEL]], np.int32)
NO_TAGS = np.full((3, 3), IGNORE_LABEL, np.int32)


def unit_vectors(rng, *shape):
    x = rng.standard_normal(shape)
    return jnp.asarray(x / np.linalg.norm(x, axis=-1, keepdims=True), jnp.float32)


@pytest.fixture
def rng():
    return np.random.default_rng(0)


@pytest.fixture
def patches(rng):
    return unit_vectors(rng, 3, *GRID, WIDTH)


@pytest.fixture
def vectors(rng):
    return unit_vectors(rng, CLASSES, WIDTH)


@pytest.fixture
def label(rng):
    return jnp.asarray(rng.integers(IGNORE_LABEL, CLASSES, (3, *SIZE)), jnp.int32)


def table_of(vectors, multiplicity=None):
    counts = jnp.ones(len(vectors)) if multiplicity is None else jnp.asarray(multiplicity, jnp.float32)
    return ClassTable(vectors, counts, jnp.array(2.5), jnp.array(0.3))


def direct_logits(patches, vectors):
    """Logits of every pixel of the loss grid (b, H, W, n), upsampled by jax.image.resize."""
    scores = jnp.tensordot(patches, vectors, (-1, -1), precision="highest")
    centred = scores - scores.mean(-1, keepdims=True)
    logits = 2.5 * centred / jnp.sqrt(scores.var(-1, keepdims=True) + 1e-5) + 0.3
    return jax.image.resize(logits, (len(patches), *SIZE, len(vectors)), "bilinear")


def direct_tag_losses(patches, vectors, tags, attention):
    """Cross entropy of every pair, one after the other; `attention` (b, l, H, W)."""
    logits = direct_logits(patches, vectors)
    of_pairs = []
    for i, image_tags in enumerate(tags.tolist()):
        present = [t for t in image_tags if t != IGNORE_LABEL]
        for slot, tag in enumerate(present):
            weights = attention[i, slot][..., None]
            pooled = (weights * logits[i]).mean((0, 1))
            columns = [tag, *(c for c in range(len(vectors)) if c not in present)]
            of_pairs.append(-jax.nn.log_softmax(pooled[np.array(columns)])[0])
    return jnp.stack(of_pairs)


def closed_tag_losses(patches, table, tags, attention):
    """The same by the library: weights carried back to the patches, classes met once."""
    pooled = losses.pooled_classifier(patches.reshape(len(patches), -1, WIDTH), table)
    return losses.image_label_losses(pooled(pooling_weights(attention, GRID)), jnp.asarray(tags), table.multiplicity)


def assert_trees_close(ours, expected, tolerance=2e-5):
    for a, b in zip(jax.tree.leaves(ours), jax.tree.leaves(expected), strict=True):
        np.testing.assert_allclose(a, b, atol=tolerance * float(jnp.max(jnp.abs(b))))


def attention_of(rng, pairs=3):
    return jnp.asarray(rng.random((3, pairs, *SIZE)), jnp.float32)


def test_pooling_before_the_classes_is_exact(rng, patches, vectors):
    attention = attention_of(rng)

    def ours(patches, vectors):
        of_pairs = closed_tag_losses(patches, table_of(vectors), TAGS, attention)
        return losses.mean_over_pairs(of_pairs, jnp.asarray(TAGS)), of_pairs[TAGS != IGNORE_LABEL]

    def direct(patches, vectors):
        of_pairs = direct_tag_losses(patches, vectors, TAGS, attention)
        return of_pairs.mean(), of_pairs

    results = [jax.jit(jax.value_and_grad(f, argnums=(0, 1), has_aux=True))(patches, vectors) for f in (ours, direct)]
    assert_trees_close(*results)


def test_pooled_logits_are_the_mean_of_those_of_the_loss_grid(rng, patches, vectors):
    attention = attention_of(rng)
    ours = losses.pooled_classifier(patches.reshape(3, -1, WIDTH), table_of(vectors))(pooling_weights(attention, GRID))
    logits = direct_logits(patches, vectors)
    expected = jnp.mean(attention[..., None] * logits[:, None], axis=(2, 3))
    np.testing.assert_allclose(ours, expected, atol=1e-5)


def test_one_row_of_weights_serves_all_labels_of_an_image(rng, patches, vectors):
    alike = jnp.ones((3, 3, *SIZE))
    of_pairs = closed_tag_losses(patches, table_of(vectors), TAGS, alike)
    shared = closed_tag_losses(patches, table_of(vectors), TAGS, alike[:, :1])
    np.testing.assert_allclose(shared, of_pairs, rtol=1e-6)
    np.testing.assert_allclose(
        shared[TAGS != IGNORE_LABEL], direct_tag_losses(patches, vectors, TAGS, alike), rtol=1e-5
    )
    # Enlarging by a whole factor keeps the mean: all patches weigh the same.
    np.testing.assert_allclose(pooling_weights(alike, GRID), 1 / 12, rtol=1e-5)
    np.testing.assert_allclose(everywhere(3, GRID, SIZE), np.full((3, 1, 12), 1 / 12), rtol=1e-5)


def test_one_classifier_serves_both_losses_and_sends_the_gradients_of_both(rng, patches, vectors):
    attention, tags = attention_of(rng), jnp.asarray(TAGS)

    def ours(patches, vectors):
        pooled = losses.pooled_classifier(patches.reshape(3, -1, WIDTH), table_of(vectors))
        poolings = pooling_weights(attention, GRID), everywhere(3, GRID, SIZE)
        return sum(losses.pair_losses(pooled(x), tags, jnp.ones(CLASSES), tags != IGNORE_LABEL) for x in poolings)

    def direct(patches, vectors):
        of_pairs = (direct_tag_losses(patches, vectors, TAGS, x) for x in (attention, jnp.ones_like(attention)))
        return sum(x.mean() for x in of_pairs)

    assert_trees_close(*(jax.jit(jax.value_and_grad(f, (0, 1)))(patches, vectors) for f in (ours, direct)))


def test_pairs_without_attention_count_as_zero(rng, patches, vectors):
    tags, active = jnp.asarray(TAGS), np.array([[True, False, True], [False] * 3, [True, True, False]])
    pooled = losses.pooled_classifier(patches.reshape(3, -1, WIDTH), table_of(vectors))(
        pooling_weights(attention_of(rng), GRID)
    )
    of_pairs = losses.image_label_losses(pooled, tags, jnp.ones(CLASSES))
    found = losses.pair_losses(pooled, tags, jnp.ones(CLASSES), jnp.asarray(active))
    np.testing.assert_allclose(found, np.asarray(of_pairs)[active].sum() / 6, rtol=1e-6)


def direct_seg_losses(patches, vectors, label):
    """Cross entropy of every pixel (b, H, W), 0 where ignored."""
    log_p = jax.nn.log_softmax(direct_logits(patches, vectors))
    picked = jnp.take_along_axis(log_p, jnp.maximum(label, 0)[..., None], -1)[..., 0]
    return jnp.where(label == IGNORE_LABEL, 0.0, -picked)


def test_segmentation_loss_counts_ignored_pixels_in_its_mean(patches, vectors, label):
    everything = jnp.ones(3, bool)

    def ours(patches, vectors):
        return losses.segmentation_loss(patches, table_of(vectors), label, everything)

    def direct(patches, vectors):
        return direct_seg_losses(patches, vectors, label).mean()

    assert_trees_close(*(jax.jit(jax.value_and_grad(f, (0, 1)))(patches, vectors) for f in (ours, direct)))
    by_valid = losses.segmentation_loss(patches, table_of(vectors), label, everything, "valid")
    labelled = float(np.mean(np.asarray(label) != IGNORE_LABEL))
    np.testing.assert_allclose(by_valid * labelled, ours(patches, vectors), rtol=1e-5)


@pytest.mark.parametrize("mean_over", ["all", "valid"])
def test_images_of_padding_take_no_part(patches, vectors, label, mean_over):
    valid = jnp.array([True, False, True])

    def loss(patches):
        return losses.segmentation_loss(patches, table_of(vectors), label, valid, mean_over)

    kept = np.array([0, 2])
    alone = losses.segmentation_loss(patches[kept], table_of(vectors), label[kept], jnp.ones(2, bool), mean_over)
    value, gradient = jax.jit(jax.value_and_grad(loss))(patches)
    np.testing.assert_allclose(value, alone, rtol=1e-6)
    assert not np.any(gradient[1])
    assert np.all(np.any(gradient[kept], axis=(1, 2, 3)))


@pytest.mark.parametrize("mean_over", ["all", "valid"])
def test_nothing_labelled_is_loss_zero(patches, vectors, label, mean_over):
    nothing = jnp.full_like(label, IGNORE_LABEL)
    for valid in (jnp.ones(3, bool), jnp.zeros(3, bool)):

        def loss(patches, valid=valid):
            return losses.segmentation_loss(patches, table_of(vectors), nothing, valid, mean_over)

        value, gradient = jax.jit(jax.value_and_grad(loss))(patches)
        assert value == 0
        np.testing.assert_array_equal(gradient, 0.0)


def test_a_single_pair_and_a_single_labelled_pixel_are_their_own_mean(patches, vectors, label):
    one_tag = np.where(np.arange(9).reshape(3, 3) == 3, 2, IGNORE_LABEL).astype(np.int32)
    of_pairs = jnp.where(jnp.asarray(one_tag) == 2, 5.0, 0.0)
    np.testing.assert_array_equal(losses.mean_over_pairs(of_pairs, jnp.asarray(one_tag)), 5.0)
    one_pixel = jnp.full_like(label, IGNORE_LABEL).at[1, 2, 5].set(4)
    found = losses.segmentation_loss(patches, table_of(vectors), one_pixel, jnp.ones(3, bool), "valid")
    np.testing.assert_allclose(found, direct_seg_losses(patches, vectors, one_pixel)[1, 2, 5], rtol=1e-5)


COPIES = np.array([3, 1, 2, 1, 1, 4, 1])
FIRST_COPY = np.concatenate([[0], np.cumsum(COPIES)[:-1]])


def test_multiplicity_is_the_same_as_really_repeated_columns(rng, patches, vectors, label):
    attention = attention_of(rng)
    repeated_label = jnp.where(label == IGNORE_LABEL, IGNORE_LABEL, jnp.asarray(FIRST_COPY)[label])
    repeated_tags = np.where(TAGS == IGNORE_LABEL, IGNORE_LABEL, FIRST_COPY[TAGS])

    def total(patches, table, label, tags):
        seg = losses.segmentation_loss(patches, table, label, jnp.ones(3, bool))
        return seg + jnp.sum(closed_tag_losses(patches, table, tags, attention)), seg

    def merged(patches, vectors):
        return total(patches, table_of(vectors, COPIES), label, TAGS)

    def repeated(patches, vectors):
        return total(patches, table_of(jnp.repeat(vectors, COPIES, axis=0)), repeated_label, repeated_tags)

    def direct(patches, vectors):
        columns = jnp.repeat(vectors, COPIES, axis=0)
        seg = direct_seg_losses(patches, columns, repeated_label).mean()
        return seg + jnp.sum(direct_tag_losses(patches, columns, repeated_tags, attention)), seg

    results = [
        jax.jit(jax.value_and_grad(f, (0, 1), has_aux=True))(patches, vectors) for f in (merged, repeated, direct)
    ]
    assert_trees_close(results[0], results[2])
    assert_trees_close(results[1], results[2])


def test_columns_of_padding_take_no_part(rng, patches, vectors, label):
    attention = attention_of(rng)

    def total(patches, vectors, multiplicity):
        table = table_of(vectors, multiplicity)
        seg = losses.segmentation_loss(patches, table, label, jnp.ones(3, bool))
        return seg + jnp.sum(closed_tag_losses(patches, table, TAGS, attention))

    gradient = jax.jit(jax.value_and_grad(total, argnums=(0, 1)))
    padded = jnp.concatenate([vectors, 3.0 * unit_vectors(rng, 4, WIDTH)])
    value, (of_patches, of_vectors) = gradient(patches, padded, np.pad(np.ones(CLASSES), (0, 4)))
    assert_trees_close((value, (of_patches, of_vectors[:CLASSES])), gradient(patches, vectors, np.ones(CLASSES)))
    np.testing.assert_array_equal(of_vectors[CLASSES:], 0.0)


def test_an_image_with_every_class_as_tag_has_nothing_to_learn(patches, vectors):
    # Each label is then alone in its softmax.
    tags = np.tile(np.arange(CLASSES, dtype=np.int32), (3, 1))

    def loss(patches, vectors):
        return jnp.sum(closed_tag_losses(patches, table_of(vectors), tags, jnp.ones((3, 1, *SIZE))))

    value, gradients = jax.jit(jax.value_and_grad(loss, (0, 1)))(patches, vectors)
    np.testing.assert_allclose(value, 0.0, atol=1e-6)
    assert_trees_zero(gradients)


def test_an_image_without_tags_has_loss_zero(patches, vectors):
    def loss(patches, vectors):
        of_pairs = closed_tag_losses(patches, table_of(vectors), NO_TAGS, jnp.ones((3, 1, *SIZE)))
        return losses.mean_over_pairs(of_pairs, jnp.asarray(NO_TAGS))

    value, gradients = jax.jit(jax.value_and_grad(loss, (0, 1)))(patches, vectors)
    assert value == 0
    assert_trees_zero(gradients)


def assert_trees_zero(tree):
    for leaf in jax.tree.leaves(tree):
        np.testing.assert_allclose(leaf, 0.0, atol=1e-6)


def test_the_mean_runs_over_pairs_not_images():
    of_pairs = jnp.array([[3.0, 1.0, 2.0], [6.0, 0.0, 0.0], [0.0, 0.0, 0.0]])
    np.testing.assert_allclose(losses.mean_over_pairs(of_pairs, jnp.asarray(TAGS)), 12.0 / 6)


def test_logits_follow_from_the_scores_of_all_columns(patches, vectors):
    scores = np.einsum("bhwd,nd->bhwn", patches, vectors)
    repeated = np.repeat(scores, COPIES, axis=-1)
    expected = (repeated - repeated.mean(-1, keepdims=True)) / np.sqrt(repeated.var(-1, keepdims=True) + 1e-5)
    logits = standardised_logits(patches, table_of(vectors, COPIES))
    np.testing.assert_allclose(np.repeat(logits, COPIES, axis=-1), 2.5 * expected + 0.3, atol=2e-5)
