"""L_cls and L_aux of one stream, against the loops of reference.py: pairs without a region, and what has a gradient."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from larvseg_jax.methods.larvseg.ca_classifier import CAConfig
from larvseg_jax.methods.larvseg.memory_bank import MemoryBank
from larvseg_jax.methods.larvseg.options import TagLoss
from larvseg_jax.methods.larvseg.streams import Stream
from larvseg_jax.methods.larvseg.tag_losses import tag_losses
from larvseg_jax.models.cosine_head import ClassTable
from larvseg_jax.vocabulary import Vocabulary
from tests.methods.larvseg import reference

WIDTH = 6
VOCABULARY = Vocabulary(tuple("abcdefg"), base=(), novel=())
OPTIONS = {
    "memory_bank_size": 2,
    "foreground_topk": 3,
    "background_topk": 3,
    "background_threshold": 0.35,
    "class_block": 3,
}


def unit_vectors(rng, *shape):
    x = rng.standard_normal(shape)
    return (x / np.linalg.norm(x, axis=-1, keepdims=True)).astype(np.float32)


def table_of(vectors):
    return ClassTable(jnp.asarray(vectors), jnp.ones(len(vectors)), jnp.array(1.5), jnp.array(0.2))


def stream_of(names, loss_size):
    return Stream("tags", VOCABULARY.label_set(names), TagLoss(lambda_aux=0.5), loss_size)


def filled_bank(rng):
    """Every ring was filled once."""
    bank = MemoryBank.from_slots(jnp.asarray(0.7 * unit_vectors(rng, len(VOCABULARY.classes), 2, WIDTH)))
    return bank.replace(wraps=jnp.ones_like(bank.wraps))


def expected_losses(patches, table, tags, stream, bank, options, pairs=None):
    """((L_cls, L_aux), pairs) by loops, in float64; with the `pairs` given the attention is held fixed."""
    columns = reference.Columns(table, stream.label_set)
    tags = [[t for t in row if t >= 0] for row in tags.tolist()]
    size = (stream.loss_size, stream.loss_size)
    if pairs is None:
        bank = reference.Bank(bank.slots, bank.cursor, bank.wraps)
        pairs = reference.stream_pairs(patches, columns, tags, bank, options, size)
    return reference.tag_losses(patches, columns, tags, pairs, size), pairs


@pytest.mark.parametrize("names", ["abcdefg", "gcaeb"])
def test_a_tag_without_a_region_counts_as_a_pair_of_loss_zero(names):
    rng = np.random.default_rng(8)
    stream, options = stream_of(names, 2), CAConfig("region", **OPTIONS)
    patches, vectors = unit_vectors(rng, 3, 2, 2, WIDTH), unit_vectors(rng, len(names), WIDTH)
    vectors[1] = np.eye(WIDTH)[0]
    # In the first picture no score of column 1 exceeds mean + standard deviation, which is 1.02.
    cosines = np.array([[0.0, 0.05], [0.9, 1.0]], np.float32)
    patches[0] = 0.0
    patches[0, ..., 0], patches[0, ..., 1] = cosines, np.sqrt(1 - cosines**2)
    tags = np.array([[1, -1], [2, 4], [1, -1]], np.int32)
    bank, table = MemoryBank.empty(len(VOCABULARY.classes), 2, WIDTH), table_of(vectors)
    step = jax.jit(lambda x: tag_losses(x, table, jnp.asarray(tags), bank, stream, options, True))
    ours, writes = step(patches)
    (l_cls, l_aux), pairs = expected_losses(patches, table, tags, stream, bank, options)
    assert [pair.weights is None for pair in pairs] == [True, False, False, False]
    np.testing.assert_allclose(ours["L_cls"], l_cls, rtol=1e-5)
    np.testing.assert_allclose(ours["L_aux"], l_aux, rtol=1e-5)
    np.testing.assert_allclose(ours["attended"], 3 / 4, rtol=1e-6)
    # To the bank all of them write.
    present = np.asarray(writes.present)
    np.testing.assert_array_equal(present, tags.reshape(-1) >= 0)
    np.testing.assert_array_equal(writes.rows[present], [pair.row for pair in pairs])
    np.testing.assert_allclose(writes.features[present], [pair.feature for pair in pairs], atol=1e-6)


@pytest.mark.parametrize("variant", ["cross_image", "own_bank"])
def test_attention_is_a_constant_of_the_gradient(variant):
    rng = np.random.default_rng(1)
    stream, options = stream_of("gcaeb", 8), CAConfig(variant, **OPTIONS)
    patches, vectors = unit_vectors(rng, 4, 4, 4, WIDTH), unit_vectors(rng, 5, WIDTH)
    tags = np.array([[0, 3], [2, -1], [1, -1], [1, 4]], np.int32)
    bank = filled_bank(rng)

    def ours(patches, vectors):
        losses, _ = tag_losses(patches, table_of(vectors), jnp.asarray(tags), bank, stream, options, True)
        return losses["L_aux"]

    def expected(patches, vectors, pairs=None):
        # The table as it is, not rounded to float32: the slope is a small difference.
        table = table_of(vectors.astype(np.float32))._replace(vectors=vectors)
        return expected_losses(patches, table, tags, stream, bank, options, pairs)

    point = [np.float64(x) for x in (patches, vectors)]
    (_, loss), pairs = expected(*point)
    assert {pair.background for pair in pairs} >= {"other labels", "mined"}
    value, gradients = jax.jit(jax.value_and_grad(ours, argnums=(0, 1)))(patches, vectors)
    np.testing.assert_allclose(value, loss, rtol=1e-5)
    h = 1e-5
    for _ in range(3):
        directions = [rng.standard_normal(x.shape) for x in point]

        def slope(pairs=None, directions=directions):
            ends = [[x + side * d for x, d in zip(point, directions, strict=True)] for side in (h, -h)]
            (_, up), (_, down) = (expected(*end, pairs)[0] for end in ends)
            return (up - down) / (2 * h)

        held = slope(pairs)
        size = np.sqrt(sum(np.sum(np.float64(g) ** 2) for g in gradients))
        found = sum(np.sum(np.float64(g) * d) for g, d in zip(gradients, directions, strict=True))
        np.testing.assert_allclose(found, held, atol=1e-4 * size)
        assert abs(slope() - held) > 1e-2 * size, "the attention hardly moves: choose other numbers"
