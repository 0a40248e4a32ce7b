"""A training from captions goes through the real house: trained, resumed, evaluated, shown, predicted and exported."""

import json

import jax
import numpy as np
import pytest
from PIL import Image

from configs import common
from configs.vilseg import parts
from larvseg_jax.config import from_config
from larvseg_jax.evaluate import evaluate_checkpoint
from larvseg_jax.export import export
from larvseg_jax.predict.predictor import Predictor
from larvseg_jax.report.metric_log import read_history
from larvseg_jax.train import train
from larvseg_jax.trained import load_trained
from larvseg_jax.weights.stored_checkpoint import read_checkpoint
from tests import tiny

STEPS = 6
WORDS = ("a", "photo", "of", "and", *tiny.NAMES)

pytestmark = pytest.mark.slow


def config_of(data, workdir, steps=STEPS):
    config = parts.experiment("vilseg_tiny")
    config.data_root, config.workdir, config.total_steps, config.log_every = str(data), str(workdir), steps, 1
    config.data_threads, config.gallery = 0, 2
    config.vocabulary.update(classes=tiny.NAMES, base=tiny.BASE, novel=tiny.NOVEL, background="background")
    config.model.update(width=16, depth=2, num_heads=2, mlp_dim=32, patch_size=4, image_size=16)
    config.method.width = 12
    config.method.tokenizer.update(kind="words", words=WORDS, context=8)
    config.method.text.update(width=8, depth=1, num_heads=2, mlp_dim=16)
    config.method.vision.update(dim=10, target="ema_teacher", teacher_momentum=0.9)
    config.method.cluster.num = 5
    source = common.source(folder="tiny", split="train")
    parts.captions(config, source, batch_size=8, crop_size=16, local_size=8)
    config.optimizer.learning_rate = 1e-3
    config.optimizer.schedule, config.optimizer.power = "polynomial", 0.0  # whatever the number of steps
    config.evals.val.update(source=common.source(folder="tiny", split="val"), scale=(64, 16), window=16, stride=8)
    config.evals.val.every, config.checkpoint.every = STEPS, 3
    return config


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    folder = tiny.write_data(tmp_path_factory.mktemp("data"))
    labels = json.loads((folder / "splits.json").read_text())["image_labels"]
    captions = {
        f"{stem}.png": [f"a photo of {' and '.join(tiny.NAMES[i] for i in found)}"] for stem, found in labels.items()
    }
    (folder / "captions.json").write_text(json.dumps(captions))
    return folder.parent


@pytest.fixture(scope="module")
def trained(data, tmp_path_factory):
    workdir = tmp_path_factory.mktemp("run")
    train(from_config(config_of(data, workdir)))
    return workdir


def test_it_is_logged_evaluated_and_reported(trained):
    history = read_history(trained)
    steps = [line for line in history if line["kind"] == "train"]
    wanted = ("L_vision", "L_cross", "L_cluster", "information", "clusters_in_use", "retrieval_at_1", "target_entropy")
    assert len(steps) == STEPS
    assert all(np.isfinite(line[f"captions/{name}"]) for line in steps for name in wanted)
    (scores,) = (line for line in history if line["kind"] == "eval")
    assert evaluate_checkpoint(trained)["val"].scalars()["aAcc"] == pytest.approx(scores["aAcc"], abs=1e-9)
    page = (trained / "report.html").read_text()
    assert "clusters: " in page
    assert "aAcc novel" in page


def test_the_same_checkpoint_is_evaluated_by_kmeans(trained, data, tmp_path):
    config = config_of(data, tmp_path)
    config.method.eval.clusters = "kmeans"
    assert load_trained(trained, options=config.method.to_dict()).method.config.eval.clusters == "kmeans"
    assert load_trained(trained).method.config.eval.clusters == "head"
    assert 0 <= evaluate_checkpoint(trained, config=config)["val"].scalars()["aAcc"] <= 1


def test_it_predicts_and_is_exported(trained, data, tmp_path):
    image = np.asarray(Image.open(data / "tiny" / "images" / "p19.png").convert("RGB"))
    prediction = Predictor.load(trained)(image, top_k=2)
    assert prediction.labels.shape == (*image.shape[:2], 2)
    export(trained, tmp_path / "model.safetensors")
    again = Predictor.load(tmp_path / "model.safetensors")(image, top_k=2)
    np.testing.assert_array_equal(again.labels, prediction.labels)


def test_it_resumes_with_its_centre_and_teacher(trained, data, tmp_path):
    for steps in (3, STEPS):
        config = config_of(data, tmp_path, steps)
        config.evals, config.gallery = {}, 0
        train(from_config(config))
    whole, halves = (read_checkpoint(folder, memory=True) for folder in (trained, tmp_path))
    assert "center" in whole.memory
    assert any(name.startswith("teacher/backbone/") for name in whole.memory)
    both = ({**found.params, **found.memory} for found in (whole, halves))
    jax.tree.map(np.testing.assert_array_equal, *both)
