"""Checkpoints and exported files of version 0.1 (tests/data/README.md) are read as they were, and trained on."""

import tarfile

import jax
import numpy as np
import pytest
from safetensors.numpy import load_file

from larvseg_jax.config import from_config
from larvseg_jax.evaluate import evaluate_checkpoint
from larvseg_jax.export import export
from larvseg_jax.report.metric_log import read_history
from larvseg_jax.train import train
from larvseg_jax.trained import load_trained
from larvseg_jax.weights.safetensors_file import arrays_by_path
from tests import tiny
from tests.conftest import REPOSITORY

CHECKPOINT = REPOSITORY / "tests/data/version_0_1.tar.xz"
EXPORTED = REPOSITORY / "tests/data/version_0_1.safetensors"
STEP = 4
SCORES = {"mean_iou": 0.005687973997833153, "base_iou": 0.011375947995666305, "pixel_acc": 0.53125}
"""What version 0.1 itself logged for this checkpoint."""
LOSSES = {
    5: {"loss": 0.5816900730133057, "tags/L_cls": 1.1258454322814941, "tags/L_aux": 0.9458980560302734},
    6: {"loss": 0.7665975093841553, "tags/L_cls": 1.7744226455688477, "tags/L_aux": 1.268570065498352},
    7: {"loss": 0.6151226758956909, "tags/L_cls": 2.1413700580596924, "tags/L_aux": 1.461313247680664},
    8: {"loss": 0.7343217730522156, "tags/L_cls": 0.9871296882629395, "tags/L_aux": 0.8461084961891174},
}
"""What it logged for the steps after it."""


def small_config():
    """The config of the stored run, in today's terms."""
    config = tiny.get_config()
    config.update(name="small", total_steps=8, gallery=1)
    config.model.update(width=8, depth=1, num_heads=2, mlp_dim=8, patch_size=4, image_size=8)
    for stream in config.streams.values():
        stream.update(crop_size=8, scale=(32, 8), batch_size=4)
    config.method.ca_classifier.update(memory_bank_size=2, foreground_topk=2, background_topk=2)
    config.evals.val.update(scale=(32, 8), window=8, stride=8, every=4)
    config.checkpoint.every = 4
    config.mesh.model = 2  # version 0.1 had one device
    return config


@pytest.fixture
def data(tmp_path):
    return tiny.write_data(tmp_path / "data").parent


@pytest.fixture
def run(tmp_path):
    with tarfile.open(CHECKPOINT) as archive:
        archive.extractall(tmp_path / "run/checkpoints", filter="data")
    return tmp_path / "run"


def stored_arrays():
    """The arrays of the exported file by name, read by the safetensors library alone."""
    return {name.replace("bank/", "memory/"): value for name, value in load_file(EXPORTED).items()}


def test_both_hold_the_same_arrays_bit_by_bit(run):
    for path in (run, EXPORTED):
        trained = load_trained(path, memory=True)
        loaded = arrays_by_path(trained.params) | {
            f"memory/{name}": value for name, value in arrays_by_path(trained.memory).items()
        }
        assert loaded.keys() == stored_arrays().keys()
        for name, value in stored_arrays().items():
            np.testing.assert_array_equal(loaded[name], value, strict=True, err_msg=name)
        assert (trained.step, trained.vocabulary.classes) == (STEP, tiny.NAMES)


def test_exported_again_it_has_todays_names_and_the_same_numbers(run, tmp_path):
    export(run, tmp_path / "new.safetensors", memory=True)
    again = load_file(tmp_path / "new.safetensors")
    assert again.keys() == stored_arrays().keys()
    assert all(np.array_equal(again[name], value) for name, value in stored_arrays().items())


def test_old_options_become_todays(run):
    """All of them but the folders and the number of devices."""
    new = from_config(small_config())
    for path in (run, EXPORTED):
        old = load_trained(path).experiment()
        for part in (
            "vocabulary",
            "streams",
            "method",
            "vit",
            "optimizer",
            "evals",
            "checkpoint",
            "seed",
            "total_steps",
        ):
            assert getattr(old, part) == getattr(new, part), part
        assert old.mesh.rules == new.mesh.rules


def test_an_option_that_did_not_exist_has_its_default(run):
    for path in (run, EXPORTED):
        trained = load_trained(path)
        assert "layer_norm_epsilon" not in trained.settings["model"]
        assert trained.method.task.backbone.layer_norm_epsilon == 1e-6
        assert trained.experiment().vit.layer_norm_epsilon == 1e-6


def test_it_scores_as_it_did(run, data):
    for path in (run, EXPORTED):
        summary = evaluate_checkpoint(path, data_root=str(data))["val"]
        assert {name: getattr(summary, name) for name in SCORES} == pytest.approx(SCORES, abs=1e-9)


@pytest.mark.slow
def test_training_goes_on_with_the_same_losses(run, data):
    config = small_config()
    config.update(workdir=str(run), data_root=str(data))
    state = train(from_config(config))
    assert int(state.step) == config.total_steps
    logged = {line["step"]: line for line in read_history(run) if line["kind"] == "train"}
    assert logged.keys() == LOSSES.keys()
    for step, losses in LOSSES.items():
        assert {name: logged[step][name] for name in losses} == pytest.approx(losses, rel=1e-4), step
    assert all(np.isfinite(leaf).all() for leaf in jax.tree.leaves(state.params))
