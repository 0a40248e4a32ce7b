"""LSeg against recorded numbers, and through the house: trained, its text vectors kept, a class known by name alone."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from configs import common
from larvseg_jax import assemble
from larvseg_jax.config import from_config
from larvseg_jax.devices.mesh import make_mesh
from larvseg_jax.errors import UserError
from larvseg_jax.methods import lseg
from larvseg_jax.methods.method import Linear, Method
from larvseg_jax.text.vectors import TextClasses, write_text_vectors
from larvseg_jax.trained import load_trained
from tests import tiny

# The names' vectors: grey and blue, of which no mask is seen, stand near classes that have masks.
TEXT = {
    "background": [1, 0, 0, 0],
    "red": [0, 1, 0, 0],
    "green": [0, 0, 1, 0],
    "blue": [0, 0.6, 0, 0.8],
    "grey": [0.8, 0, 0, 0.6],
}


@pytest.fixture
def config(tmp_path):
    tiny.write_data(tmp_path)
    write_text_vectors(tmp_path / "text.npz", list(TEXT), np.array(list(TEXT.values()), np.float32))
    config = tiny.get_config()
    with config.unlocked():
        del config.streams["tags"]
    common.use_method(config, lseg.Config(TextClasses(str(tmp_path / "text.npz"), 4)))
    config.streams.masks.weight = 1.0
    config.data_root, config.workdir, config.total_steps = str(tmp_path), str(tmp_path / "run"), 6
    return config


def test_the_loss_is_the_cross_entropy_of_cosines(config, tmp_path):
    """By NumPy, at the corners of the loss grid, where bilinear upsampling takes one patch alone."""
    config.model.drop_path = 0.0
    run, mesh = from_config(config), make_mesh(1, 1, jax.devices()[:1])
    method = assemble.make_method(run, mesh)
    assert isinstance(method, Method)
    params, memory = method.init(jax.random.key(0))
    np.testing.assert_allclose(memory[:5], np.array(list(TEXT.values())), atol=1e-6)
    images = np.random.default_rng(0).standard_normal((2, 16, 16, 3)).astype(np.float32)
    label = np.full((2, 8, 8), -1, np.int32)
    label[0, 0, 0], label[1, 7, 7], label[1, 0, 7] = 1, 2, 0
    batch = {"masks": {"image": images, "label": label, "valid": np.array([True, True])}}
    loss, (metrics, _) = method.loss(params, memory, jax.tree.map(jnp.asarray, batch), jax.random.key(1))
    patches = np.asarray(method.embed(params, jnp.asarray(images)))
    np.testing.assert_allclose(np.linalg.norm(patches, axis=-1), 1, rtol=1e-5)
    losses = []
    for b, y, x, column in ((0, 0, 0, 1), (1, 3, 3, 2), (1, 0, 3, 0)):
        logits = patches[b, y, x] @ np.array(list(TEXT.values()))[:3].T / 0.07  # the stream knows three classes
        losses.append(np.log(np.exp(logits - logits[column]).sum()))
    assert float(loss) == pytest.approx(np.mean(losses), rel=1e-4)
    assert metrics["masks/L_seg"] == loss
    # A picture that only fills up counts nowhere.
    batch["masks"]["valid"] = np.array([True, False])
    alone, _ = method.loss(params, memory, jax.tree.map(jnp.asarray, batch), jax.random.key(1))
    assert float(alone) == pytest.approx(losses[0], rel=1e-4)


def test_classes_are_scored_by_their_vectors(config):
    run, mesh = from_config(config), make_mesh(1, 1, jax.devices()[:1])
    method = assemble.make_method(run, mesh)
    params, memory = method.init(jax.random.key(0))
    scorer = method.scorer(run.vocabulary.label_set(("blue", "grey", "red")))
    assert isinstance(scorer, Linear)
    images = jnp.asarray(np.random.default_rng(0).standard_normal((1, 16, 16, 3)), jnp.float32)
    expected = np.asarray(method.embed(params, images)) @ np.array([TEXT[n] for n in ("blue", "grey", "red")]).T / 0.07
    np.testing.assert_allclose(scorer.scores(params, memory, images), expected, atol=1e-4)
    classes = scorer.vectors(params, memory)
    features = scorer.features(params, memory, classes, images)
    np.testing.assert_allclose(features @ classes.vectors.T, expected, atol=1e-4)


def test_its_vectors_are_in_the_checkpoint(config, tmp_path):
    tiny.save_untrained(config)
    (tmp_path / "text.npz").unlink()  # a trained model needs the file no more
    trained = load_trained(tmp_path / "run")
    np.testing.assert_allclose(trained.memory, np.array(list(TEXT.values())), atol=1e-6)


@pytest.mark.parametrize(
    ("spoil", "said"),
    [
        (lambda c, f: write_text_vectors(f, ["red"], np.ones((1, 4), np.float32)), "has no vector of 'background'"),
        (lambda c, f: c.method.text.update(width=0, vectors=""), "give method.text.vectors and .width"),
        (lambda c, f: c.method.update(temperature=0.0), "temperature is 0.0"),
        (lambda c, f: c.streams.masks.update(kind="tags"), "LSeg learns from masks"),
    ],
)
def test_what_cannot_be_is_said_in_a_line(config, tmp_path, spoil, said):
    spoil(config, tmp_path / "text.npz")
    with pytest.raises(UserError, match=said):
        assemble.make_method(from_config(config), make_mesh(1, 1, jax.devices()[:1]))
