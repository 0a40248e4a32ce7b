"""The three commands of docs/features.md: features, a training on them that is resumed, an evaluation."""

import json
import shutil

import numpy as np
import pytest

from larvseg_jax import cli
from larvseg_jax.report.metric_log import read_history
from larvseg_jax.weights.stored_checkpoint import read_checkpoint
from tests import tiny
from tests.doc_commands import REPOSITORY

pytestmark = pytest.mark.filterwarnings("ignore:the load_module:DeprecationWarning")
CONFIG = f"--config={REPOSITORY / 'tests' / 'tiny.py'}"


@pytest.mark.slow
def test_features_are_made_trained_on_resumed_and_evaluated(tmp_path, one_device, capsys):
    data = tiny.write_data(tmp_path / "data").parent
    options = [CONFIG, f"--config.data_root={data}", "--config.optimizer.frozen=^backbone/", "--config.total_steps=6"]
    cli.run("features", [*options, f"--out={tmp_path / 'features'}", "--views=2"])
    printed = capsys.readouterr().out
    assert "masks: 10 photos x 2 views (16.0 kB) after 2 blocks" in printed
    assert "tags: 8 photos x 2 views (" in printed
    described = json.loads((tmp_path / "features" / "masks" / "features.json").read_text())
    assert (described["photos"], described["views"], described["blocks"]) == (10, 2, 2)
    # Training does not look at the photos that it learns from.
    splits = data / "tiny" / "splits.json"
    splits.write_text(json.dumps(json.loads(splits.read_text()) | {"train": [], "tagged": []}))
    train = [*options, f"--config.features={tmp_path / 'features'}"]
    cli.run("train", [*train, f"--config.workdir={tmp_path / 'whole'}"])
    printed = capsys.readouterr().out
    assert "of which move and" in printed
    assert "masks: 10 pictures, 3 classes" in printed
    shutil.copytree(tmp_path / "whole" / "checkpoints" / "3", tmp_path / "resumed" / "checkpoints" / "3")
    cli.run("train", [*train, f"--config.workdir={tmp_path / 'resumed'}"])
    assert "resumed at step 3" in capsys.readouterr().out
    one, other = (read_checkpoint(tmp_path / run, memory=True) for run in ("whole", "resumed"))
    assert one.step == other.step == 6
    for name, value in {**one.params, **one.memory}.items():
        np.testing.assert_array_equal({**other.params, **other.memory}[name], value, err_msg=name)
    cli.run("evaluate", [f"--run={tmp_path / 'whole'}"])
    assert "mIoU" in capsys.readouterr().out
    losses = [line["loss"] for line in read_history(tmp_path / "whole") if line["kind"] == "train"]
    assert len(losses) == 6


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        ([CONFIG], "--out is missing"),
        ([CONFIG, "--out=x", "--views=0"], "--views=0: use 1 or more"),
        ([CONFIG, "--out=x", "--blocks=0"], "--blocks=0: use 1 or more"),
        ([CONFIG, "--out=x"], "freezes no block of the backbone"),
        ([CONFIG, f"--out={__file__}"], "is a file: give a folder"),
    ],
)
def test_wrong_flags_are_answered_in_one_line(arguments, said, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(SystemExit) as left:
        cli.run("features", arguments)
    assert left.value.code == 2
    (line,) = capsys.readouterr().err.strip().splitlines()
    assert said in line
    assert not (tmp_path / "x").exists()
