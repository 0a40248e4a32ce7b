"""CLIP through the real house: trained on captions of a folder, evaluated on masks, predicted, exported."""

import json
import shutil

import numpy as np
import pytest

from configs import clip, common
from larvseg_jax import cli
from larvseg_jax.config import from_config
from larvseg_jax.evaluate import evaluate_checkpoint
from larvseg_jax.export import export
from larvseg_jax.methods.clip.options import CaptionLoss
from larvseg_jax.predict.predictor import Predictor
from larvseg_jax.predict.segmenter import Segmenter
from larvseg_jax.report.metric_log import read_history
from larvseg_jax.train import train
from larvseg_jax.weights.places import stated_classes
from tests import tiny
from tests.weights.clip_writing import write_clip

WORDS = dict(kind="words", words=("a", "blue", "green", "grey", "of", "photo", "red"), context=8)
CLASSES = ("red", "green", "blue", "grey")


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    """The coloured boxes of tests/tiny.py, and captions that say which colours there are."""
    root = tmp_path_factory.mktemp("data")
    folder = tiny.write_data(root)
    shutil.copytree(folder / "images", root / "captions" / "images")
    labels = json.loads((folder / "splits.json").read_text())["image_labels"]
    captions = {f"{stem}.png": [" ".join(tiny.NAMES[i] for i in found)] for stem, found in labels.items()}
    (root / "captions" / "captions.json").write_text(json.dumps(captions))
    return root


def config_of(data, workdir, steps=6):
    config = clip.experiment("tiny_clip")
    config.update(data_root=str(data), workdir=str(workdir), total_steps=steps, log_every=1, data_threads=0, gallery=1)
    config.model.update(width=16, depth=2, num_heads=2, mlp_dim=32, patch_size=4, image_size=16)
    config.method.update(width=8, templates="clip", tokenizer=WORDS)
    config.method.text.update(width=16, depth=1, num_heads=2, mlp_dim=32)
    config.vocabulary.update(classes=CLASSES, novel=CLASSES)
    config.streams.captions = clip.captions(
        source=common.source(folder="captions"), batch_size=8, crop_size=16, text=WORDS
    )
    config.optimizer.update(common.from_scratch_optimizer())
    config.evals.val.update(
        source=common.source(folder="tiny", split="val"), scale=(64, 16), window=16, stride=8, every=3
    )
    config.checkpoint.every = 3
    return config


@pytest.mark.slow
def test_it_trains_evaluates_predicts_and_is_exported(data, tmp_path, one_device):
    assert common.caption_stream(CaptionLoss).weight == 1.0
    run = tmp_path / "run"
    train(from_config(config_of(data, run, steps=3)))
    history = [line for line in read_history(run) if line["kind"] == "train"]
    assert [line["step"] for line in history] == [1, 2, 3]
    assert all(np.isfinite(line["captions/L_contrastive"]) for line in history)
    scores = evaluate_checkpoint(run)["val"]
    assert np.isfinite(scores.scalars()["mIoU"])
    export(run, tmp_path / "m.safetensors")
    image = np.zeros((20, 24, 3), np.uint8)
    for model in (run, tmp_path / "m.safetensors"):
        assert Predictor.load(model)(image).labels.shape == (20, 24, 4)
        assert stated_classes(model) is None
        found = Segmenter.load(model, classes="red photo,of blue, grey")(image)  # any words
        assert found.names == ("red photo", "of blue", "grey")
        assert Segmenter.load(model, classes="blue,grey").classes == CLASSES
    of_run, of_file = (text_vectors(model, tmp_path / "v.npz") for model in (run, tmp_path / "m.safetensors"))
    np.testing.assert_array_equal(of_run["vectors"], of_file["vectors"])
    assert str(of_run["weights"]) == "run, step 3"


def text_vectors(model, out):
    cli.run("text_vectors", ["red,grey", f"--weights={model}", f"--out={out}"])
    with np.load(out) as file:
        return {name: file[name] for name in file.files}


@pytest.mark.slow
def test_a_clip_file_is_evaluated_by_a_config(data, tmp_path):
    path = write_clip(tmp_path / "clip-quickgelu.safetensors")
    config = config_of(data, tmp_path / "unused")
    config.method.features = "value_block"
    config.evals.val.update(scale=(64, 32), window=32, stride=32)
    summary = evaluate_checkpoint(path, config=config)["val"]
    assert summary.names == CLASSES
    assert np.isfinite(summary.scalars()["mIoU"])
