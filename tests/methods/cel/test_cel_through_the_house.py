"""CEL goes through the real house: trained, resumed, evaluated, shown, predicted, exported, begun from a stage."""

import shutil

import jax
import numpy as np
import pytest
from PIL import Image

from larvseg_jax.config import from_config
from larvseg_jax.devices.mesh import make_mesh
from larvseg_jax.evaluate import evaluate_checkpoint
from larvseg_jax.export import export
from larvseg_jax.predict.predictor import Predictor
from larvseg_jax.report.metric_log import read_history
from larvseg_jax.start import first_params
from larvseg_jax.train import train
from larvseg_jax.trained import load_trained
from larvseg_jax.weights.pretrained import check_pretrained
from larvseg_jax.weights.stored_checkpoint import read_checkpoint
from tests.methods.cel.tiny_cel import experiment, trained_on_one_device, write_data

STEPS = 4

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def config_of(tmp_path_factory):
    """A config of either stage, in a folder of its own."""
    root = tmp_path_factory.mktemp("data")
    write_data(root)

    def config_of(workdir, **arguments):
        return experiment(root, workdir, STEPS, **arguments)

    return config_of


@pytest.fixture(scope="module")
def trained(config_of, tmp_path_factory):
    return trained_on_one_device(config_of(tmp_path_factory.mktemp("run")))


def test_it_is_logged_evaluated_and_reported(trained):
    history = read_history(trained)
    steps = [line for line in history if line["kind"] == "train"]
    assert len(steps) == STEPS
    for name in ("L_class", "L_ce", "L_dice", "L_rank", "named"):
        assert all(np.isfinite(line[f"photos/{name}"]) for line in steps)
    (scores,) = (line for line in history if line["kind"] == "eval")
    assert evaluate_checkpoint(trained)["val"].scalars()["aAcc"] == pytest.approx(scores["aAcc"], abs=1e-9)
    assert "mask of the query most like" in (trained / "report.html").read_text()


def test_it_resumes_bit_for_bit(trained, config_of, tmp_path, one_device):
    shutil.copytree(trained, tmp_path / "again")
    shutil.rmtree(tmp_path / "again" / "checkpoints" / str(STEPS))
    config = config_of(tmp_path / "again")
    config.gallery, config.evals = 0, {}
    train(from_config(config))
    whole, again = (read_checkpoint(folder, memory=True) for folder in (trained, tmp_path / "again"))
    assert (whole.step, again.step) == (STEPS, STEPS)
    both = ({**found.params, **found.memory} for found in (whole, again))
    jax.tree.map(np.testing.assert_array_equal, *both)


def test_it_predicts_and_is_exported(trained, tmp_path, config_of):
    picture = from_config(config_of(tmp_path)).data_root / "tiny" / "images" / "p19.png"
    image = np.asarray(Image.open(picture).convert("RGB"))
    prediction = Predictor.load(trained)(image, top_k=2)
    assert prediction.labels.shape == (*image.shape[:2], 2)
    export(trained, tmp_path / "model.safetensors", memory=True)
    again, own = load_trained(tmp_path / "model.safetensors"), load_trained(trained)
    jax.tree.map(np.testing.assert_array_equal, (again.params, again.memory), (own.params, own.memory))


def test_a_stage_begins_with_the_one_before(trained, config_of, tmp_path):
    """All that it has learnt fits; with pretrained_parts its backbone alone is taken."""
    config = config_of(tmp_path, stage="pretrain")
    config.pretrained, config.pretrained_parts, config.seed = str(trained), "^backbone/", 1
    run, mesh = from_config(config), make_mesh(1, 1, jax.devices()[:1])
    params, _ = first_params(run, mesh)
    learnt = read_checkpoint(trained).params
    np.testing.assert_array_equal(params["backbone"]["embedding"]["bias"], learnt["backbone/embedding/bias"])
    assert not np.array_equal(params["decoder"]["query_features"], learnt["decoder/query_features"])
    whole = check_pretrained(trained, params, run.vit, run.vocabulary.classes)
    assert (whole.missing, whole.extra, len(whole.loaded)) == ((), (), len(jax.tree.leaves(params)))
