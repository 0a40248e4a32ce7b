"""A method that lives wholly in tests/ goes through the real house: trained, evaluated, predicted."""

import functools
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from PIL import Image

from larvseg_jax import assemble
from larvseg_jax.config import from_config
from larvseg_jax.devices.mesh import make_mesh
from larvseg_jax.evaluate import evaluate_checkpoint
from larvseg_jax.export import export
from larvseg_jax.methods.method import Method, MethodConfig
from larvseg_jax.models.pixels import normalised_batch
from larvseg_jax.predict.predictor import Predictor
from larvseg_jax.report.metric_log import read_history
from larvseg_jax.train import train
from larvseg_jax.weights.stored_checkpoint import read_checkpoint
from tests import tiny
from tests.methods import prototypes


def config_of(data: Path, workdir: Path, steps: int = 6):
    config = prototypes.get_config()
    config.data_root, config.workdir, config.total_steps = str(data), str(workdir), steps
    return config


@pytest.fixture(scope="module")
def data(tmp_path_factory) -> Path:
    return tiny.write_data(tmp_path_factory.mktemp("data")).parent


@pytest.fixture(scope="module")
def trained(data, tmp_path_factory) -> Path:
    workdir = tmp_path_factory.mktemp("run")
    train(from_config(config_of(data, workdir)))
    return workdir


def test_it_is_a_method(data, tmp_path):
    run = from_config(config_of(data, tmp_path))
    assert isinstance(run.method, MethodConfig)
    assert isinstance(assemble.make_method(run, make_mesh(1, 1, jax.devices()[:1])), Method)


@pytest.mark.slow
def test_it_trains_and_its_memory_is_the_running_mean_of_its_classes(data, tmp_path):
    """Two steps by hand: the losses fall to the generic step, the prototypes to plain NumPy."""
    run, mesh = from_config(config_of(data, tmp_path)), make_mesh(1, 1, jax.devices()[:1])
    method = assemble.make_method(run, mesh)
    state = assemble.fresh_state(run, mesh, method)
    step = assemble.seeded(run, mesh, assemble.lower_step(run, mesh, state, method).compile())
    batches = map(assemble.batch_placer(run, mesh), assemble.host_batches(run, assemble.open_streams(run), 0))
    expected = np.zeros((16, 16)), np.zeros(16, int)
    for number in range(2):
        batch, params = next(batches), jax.tree.map(jnp.copy, state.params)
        key = jax.random.fold_in(jax.random.key(run.seed), number)
        apply = functools.partial(method.network.apply, train=True, rngs={"drop_path": key})
        features = np.asarray(apply({"params": params}, normalised_batch(batch["masks"])["image"])[0]).reshape(-1, 16)
        label = np.asarray(batch["masks"]["label"])[:, ::2, ::2].ravel()
        state, _ = step(state, batch)
        rows = run.catalogue.label_set(run.streams["masks"]).rows
        for column, row in enumerate(rows):
            if (label == column).any():
                mean = features[label == column].mean(0)
                expected[0][row] = mean if not expected[1][row] else 0.9 * expected[0][row] + 0.1 * mean
                expected[1][row] += int((label == column).sum())
    np.testing.assert_allclose(state.memory["prototypes"], expected[0], atol=1e-4)
    np.testing.assert_array_equal(state.memory["seen"], expected[1])


@pytest.mark.slow
def test_it_is_evaluated_reported_and_predicted_with(trained, data, tmp_path):
    logged = [line for line in read_history(trained) if line["kind"] == "eval"]
    found = evaluate_checkpoint(trained)["val"].scalars()
    assert found["aAcc"] == pytest.approx(logged[-1]["aAcc"], abs=1e-9)
    page = (trained / "report.html").read_text()
    assert "prototypes" in page
    assert "masks" in page
    predictor = Predictor.load(trained)
    image = np.asarray(Image.open(data / "tiny" / "images" / "p19.png").convert("RGB"))
    prediction = predictor(image, top_k=2)
    assert prediction.labels.shape == (*image.shape[:2], 2)
    assert predictor.vocabulary.base == tiny.BASE
    # Its scores need the memory, which an export leaves out unless asked for.
    export(trained, tmp_path / "model.safetensors", memory=True)
    again = Predictor.load(tmp_path / "model.safetensors")(image, top_k=2)
    np.testing.assert_array_equal(again.labels, prediction.labels)


@pytest.mark.slow
def test_the_best_class_is_that_of_the_nearest_prototype(trained, data):
    """Prediction at the centre of a patch of a one-window photo, against cosines by hand."""
    stored = read_checkpoint(trained, memory=True)
    predictor = Predictor.load(trained)
    side = predictor.windows.window
    image = np.asarray(Image.open(data / "tiny" / "images" / "p20.png").convert("RGB"))[:side, :side]
    features = np.asarray(
        predictor.trained.method.embed(predictor.trained.params, jnp.asarray(predictor.windows.cut(image)[:1]))
    )[0]
    vectors = stored.memory["prototypes"][: len(tiny.NAMES)]
    norms = np.linalg.norm(vectors, axis=-1, keepdims=True)
    scores = features @ (vectors / np.maximum(norms, 1e-6)).T
    found = predictor(image, top_k=1)
    patch = predictor.trained.method.task.backbone.patch_size
    corner = found.labels[0, 0, 0]  # the corner pixel lies beyond the centre of its patch: no interpolation
    assert corner == scores[0, 0].argmax(), patch
