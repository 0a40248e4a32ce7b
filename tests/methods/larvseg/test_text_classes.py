"""LarvSeg on text vectors: they stand for the classes as they are, and a class never tagged is known by its name."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from larvseg_jax import assemble
from larvseg_jax.config import from_config
from larvseg_jax.devices.mesh import make_mesh
from larvseg_jax.methods.larvseg import taught
from larvseg_jax.text.vectors import write_text_vectors
from larvseg_jax.trained import load_trained
from tests import tiny

VECTORS = np.random.default_rng(0).standard_normal((5, 6)).astype(np.float32)
UNIT = VECTORS / np.linalg.norm(VECTORS, axis=1, keepdims=True)


@pytest.fixture
def config(tmp_path):
    tiny.write_data(tmp_path)
    write_text_vectors(tmp_path / "text.npz", tiny.NAMES, VECTORS)
    config = tiny.get_config()
    config.method.text = dict(vectors=str(tmp_path / "text.npz"), width=6)
    config.optimizer.frozen = "head/class_embeddings$"
    config.streams.tags.classes = tuple(name for name in tiny.NAMES if name != "grey")
    config.data_root, config.workdir, config.total_steps = str(tmp_path), str(tmp_path / "run"), 6
    return config


def test_the_classes_are_the_text_vectors(config):
    run, mesh = from_config(config), make_mesh(1, 1, jax.devices()[:1])
    method = assemble.make_method(run, mesh)
    params, bank = method.init(jax.random.key(0))
    assert params["head"].keys() == {"proj_patch", "class_embeddings", "gamma", "beta"}
    assert params["head"]["proj_patch"].shape == (16, 6)
    assert bank.slots.shape[-1] == 6
    _, table = method.model.apply({"params": params}, jnp.zeros((1, 16, 16, 3)), None, jnp.ones(16))
    np.testing.assert_allclose(table.vectors[:5], UNIT, atol=1e-6)


def test_they_are_in_the_checkpoint_and_a_class_can_be_taught(config, tmp_path):
    tiny.save_untrained(config)
    (tmp_path / "text.npz").unlink()  # a trained model needs the file no more
    trained = load_trained(tmp_path / "run", memory=True)
    np.testing.assert_allclose(trained.params["head"]["class_embeddings"], UNIT, atol=1e-6)
    vector = np.array([0, 3, 0, 0, 4, 0], np.float32)
    params, bank = taught.with_row(trained.params, trained.memory, vector)
    row = params["head"]["class_embeddings"][-1]
    np.testing.assert_allclose(row / np.linalg.norm(row), vector / 5, atol=1e-6)
    assert bank.slots.shape[0] == 6
