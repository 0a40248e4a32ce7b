"""The forms that benchmarks/class_scaling.py compares are one loss, and both layouts of the bank give one map."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from benchmarks import _scaling_figures, class_scaling
from benchmarks.class_scaling import Given, Learnt, closed_form, direct_form, sampled_form
from larvseg_jax.models.cosine_head import ClassTable
from larvseg_jax.vocabulary import Vocabulary
from tests.methods.larvseg import reference

CLASSES, GRID, SIZE, WIDTH = 9, 3, 6, 5
TAGS = np.array([[1, 4], [6, -1]], np.int32)
OTHERS = np.array([0, 2, 3, 5, 7, 8], np.int32)


@pytest.fixture(scope="module")
def drawn():
    rng = np.random.default_rng(0)
    patches = rng.standard_normal((2, GRID, GRID, WIDTH))
    learnt = Learnt(
        jnp.asarray(patches / np.linalg.norm(patches, axis=-1, keepdims=True), jnp.float32),
        jnp.asarray(rng.standard_normal((CLASSES, WIDTH)), jnp.float32),
        jnp.asarray(rng.standard_normal((WIDTH, WIDTH)), jnp.float32),
        jnp.array(1.7),
    )
    return learnt, Given(
        jnp.asarray(TAGS), jnp.asarray(rng.random((2, 2, SIZE, SIZE)), jnp.float32), jnp.asarray(OTHERS)
    )


def test_closed_form_has_the_value_and_gradients_of_the_direct_form(drawn):
    closed, direct = (jax.jit(jax.value_and_grad(form))(*drawn) for form in (closed_form, direct_form))
    np.testing.assert_allclose(closed[0], direct[0], rtol=1e-6)
    for ours, expected in zip(closed[1], direct[1], strict=True):
        np.testing.assert_allclose(ours, expected, rtol=1e-4, atol=1e-5 * np.abs(expected).max())


def test_direct_form_equals_loops_in_float64(drawn):
    learnt, given = drawn
    vectors = np.asarray(learnt.embeddings, np.float64) @ np.asarray(learnt.projection, np.float64)
    vectors /= np.linalg.norm(vectors, axis=1, keepdims=True)
    names = tuple("abcdefghi")
    table = ClassTable(jnp.asarray(vectors, jnp.float32), jnp.ones(CLASSES), learnt.gamma, jnp.zeros(()))
    columns = reference.Columns(table, Vocabulary(names, (), ()).label_set())
    tags = [[int(t) for t in row if t >= 0] for row in TAGS]
    pairs = [
        reference.Pair(i, tag, tag, np.asarray(given.attention[i, slot], np.float64), None, "")
        for i, row in enumerate(tags)
        for slot, tag in enumerate(row)
    ]
    patches = np.asarray(learnt.patches, np.float64)
    expected = sum(reference.tag_losses(patches, columns, tags, pairs, (SIZE, SIZE)))
    np.testing.assert_allclose(jax.jit(direct_form)(learnt, given), expected, rtol=1e-5)


def test_sampled_form_is_the_direct_form_once_every_class_is_drawn(drawn):
    learnt, given = drawn
    sampled, direct = jax.jit(sampled_form), jax.jit(direct_form)
    one_each = given._replace(tags=jnp.array([[1], [6]], "int32"), attention=given.attention[:, :1])
    everything = one_each._replace(drawn=jnp.array([0, 2, 3, 4, 5, 7, 8], "int32"))
    np.testing.assert_allclose(sampled(learnt, everything), direct(learnt, one_each), rtol=1e-6)
    fewer = one_each._replace(drawn=jnp.array([0, 2], "int32"))
    kept = learnt._replace(embeddings=learnt.embeddings[jnp.array([0, 1, 2, 6])])
    renamed = one_each._replace(tags=jnp.array([[1], [3]], "int32"))
    np.testing.assert_allclose(sampled(learnt, fewer), direct(kept, renamed), rtol=1e-6)


def test_classes_drawn_for_the_benchmark_are_not_tags(monkeypatch):
    monkeypatch.setattr(class_scaling, "WIDTH", 8)
    _, given = class_scaling.draw(150)
    drawn = given.drawn.tolist()
    assert len(set(drawn)) == class_scaling.SAMPLED
    assert not set(drawn) & set(given.tags.ravel().tolist())


@pytest.mark.parametrize(("dtype", "tolerance"), [("float32", 2e-4), ("bfloat16", 5e-3), ("float16", 7e-4)])
def test_slot_means_give_the_maps_of_all_vectors(dtype, tolerance):
    photos = _scaling_figures.draw_photos(np.random.default_rng(0), 14, 3, 8, 256)
    bank = _scaling_figures.fill(photos._replace(patches=photos.patches[:10]), 5)
    assert bank.vectors.shape == (3, 10, 5, 256)
    expected, std = _scaling_figures.maps_of_vectors(photos.patches[10:], bank)
    found = _scaling_figures.maps_of_slots(photos.patches[10:], bank, dtype)
    assert (std > _scaling_figures.FLAT).sum() >= 5
    np.testing.assert_allclose(
        found[std > _scaling_figures.FLAT], expected[std > _scaling_figures.FLAT], atol=tolerance
    )
