"""A row more in the table of the classes, and one less: what it scores, and what it leaves alone."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from larvseg_jax.errors import UserError
from larvseg_jax.methods.larvseg.memory_bank import MemoryBank
from larvseg_jax.methods.larvseg.taught import with_row, without_row

D = 12


@pytest.fixture
def rng():
    return np.random.default_rng(0)


def params_of(rng, rows=5):
    head = {"class_embeddings": rng.normal(size=(rows, D)), "proj_classes": rng.normal(size=(D, D))}
    return {"head": {name: jnp.asarray(value, jnp.float32) for name, value in head.items()}, "backbone": {}}


def table(params):
    vectors = np.asarray(params["head"]["class_embeddings"]) @ np.asarray(params["head"]["proj_classes"])
    return vectors / np.linalg.norm(vectors, axis=1, keepdims=True)


def test_the_new_row_has_the_vector_and_the_others_stay(rng):
    params, vector = params_of(rng), rng.normal(size=D).astype(np.float32)
    bank = MemoryBank.from_slots(jnp.asarray(rng.normal(size=(5, 3, D)), jnp.float32))
    grown, memory = with_row(params, bank, 7 * vector)
    unit = vector / np.linalg.norm(vector)
    np.testing.assert_allclose(table(grown)[5], unit, atol=1e-5)
    np.testing.assert_array_equal(table(grown)[:5], table(params))
    np.testing.assert_allclose(memory.slots[5], np.tile(unit, (3, 1)), rtol=1e-6)
    np.testing.assert_allclose(memory.class_mean[5], unit, rtol=1e-6)
    assert bool(memory.is_warm(jnp.asarray([5]), 1)[0])
    back, memory = without_row(grown, memory, 5)
    np.testing.assert_array_equal(table(back), table(params))
    jax.tree.map(np.testing.assert_array_equal, memory, bank)


@pytest.mark.parametrize("vector", [np.zeros(D, np.float32), np.full(D, np.nan, np.float32)])
def test_a_vector_without_direction_is_refused(rng, vector):
    with pytest.raises(UserError, match="no common direction"):
        with_row(params_of(rng), None, vector)


def test_a_projection_without_inverse_is_refused(rng):
    params = params_of(rng)
    params["head"]["proj_classes"] = params["head"]["proj_classes"].at[0].set(0.0)
    with pytest.raises(UserError, match="no class can be added"):
        with_row(params, None, np.linalg.svd(np.asarray(params["head"]["proj_classes"]))[2][-1].astype(np.float32))
