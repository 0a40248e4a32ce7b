"""An offset of novel scores: in predictions, in files that are written, and as flags."""

import json
import re

import numpy as np
import pytest
from PIL import Image

import larvseg_jax
from larvseg_jax import cli, evaluate
from larvseg_jax.config import from_config
from larvseg_jax.errors import UserError
from larvseg_jax.report.metric_log import read_history
from larvseg_jax.train import train
from larvseg_jax.trained import load_trained
from tests import tiny
from tests.evaluation.untrained import untrained
from tests.predict.models import write_model
from tests.predict.test_segmenter import NAMES, noise

NOVEL = np.array([2, 3])


@pytest.fixture(scope="module")
def file(tmp_path_factory):
    file = tmp_path_factory.mktemp("model") / "m.safetensors"
    return write_model(file, NAMES, ("dog", "sofa"), "sky", [])


def test_novel_classes_win_less_or_more_often_and_a_saved_model_keeps_it(file, tmp_path):
    plain = larvseg_jax.Segmenter.load(file)(noise(40, 60), top_k=5)
    assert np.isin(plain.labels, NOVEL).any()
    assert not np.isin(plain.labels, NOVEL).all()
    offset = larvseg_jax.Segmenter.load(file, novel_offset=-0.5)
    found = offset(noise(40, 60), top_k=5)
    scores = {int(k): float(s) for k, s in zip(found.top_labels[7, 9], found.scores[7, 9], strict=True)}
    before = {int(k): float(s) for k, s in zip(plain.top_labels[7, 9], plain.scores[7, 9], strict=True)}
    for k in range(5):
        assert scores[k] == pytest.approx(before[k] - 0.5 * (k in NOVEL), abs=1e-5)
    never = larvseg_jax.Segmenter.load(file, novel_offset=-1e4)
    assert not np.isin(never(noise(40, 60)).labels, NOVEL).any()
    assert np.isin(larvseg_jax.Segmenter.load(file, novel_offset=1e4)(noise(40, 60)).labels, NOVEL).all()
    never.save(tmp_path / "never.safetensors")
    again = larvseg_jax.Segmenter.load(tmp_path / "never.safetensors")
    assert not np.isin(again(noise(40, 60)).labels, NOVEL).any()
    assert again.trained.windows == never.trained.windows
    with pytest.raises(UserError, match="novel_offset is inf: give a number"):
        larvseg_jax.Segmenter.load(file, novel_offset=float("inf"))


def test_predict_takes_it_as_a_flag(file, tmp_path):
    Image.fromarray(noise(40, 60)).save(tmp_path / "a.png")
    flags = [str(tmp_path / "a.png"), f"--model={file}", f"--out={tmp_path / 'out'}", "--novel_offset=10000"]
    cli.run("predict", flags)
    (said,) = (tmp_path / "out").glob("*.json")
    shown = {segment["class"] for segment in json.loads(said.read_text())["segments"]}
    assert shown <= {"dog", "sofa"}


def test_evaluate_takes_a_number_or_chooses_one(tmp_path, monkeypatch, capsys):
    tiny.write_data(tmp_path)
    config = tiny.get_config()
    config.data_root = str(tmp_path)
    untrained(config, tmp_path, monkeypatch)
    never = evaluate.evaluate_checkpoint(tmp_path, novel_offset=-1e4)["val"]
    novel = np.array(never.groups) == "novel"
    assert novel.any()
    assert never.predicted[novel].sum() == 0
    assert never.base_as_novel == 0
    capsys.readouterr()
    summary = evaluate.evaluate_checkpoint(tmp_path, novel_offset="choose")["val"]
    (chosen,) = re.findall(r"val: novel_offset (\S+) chosen; --config\.evals\.val\.", capsys.readouterr().out)
    same = evaluate.evaluate_checkpoint(tmp_path, novel_offset=float(chosen))["val"]
    np.testing.assert_array_equal(summary.predicted, same.predicted)


@pytest.mark.slow
def test_a_run_predicts_with_the_offset_that_its_evaluation_chose(tmp_path, one_device, capsys):
    tiny.write_data(tmp_path)
    config = tiny.get_config()
    config.data_root, config.workdir = str(tmp_path), str(tmp_path / "run")
    config.evals.val.choose_novel_offset, config.checkpoint.keep_last = True, 9
    config.total_steps, config.evals.val.every, config.gallery = 2, 1, 0
    train(from_config(config))
    logged = {x["step"]: x["novel_offset"] for x in read_history(tmp_path / "run") if x["kind"] == "eval"}
    assert logged.keys() == {1, 2}
    for step, offset in logged.items():
        for path, number in ((tmp_path / "run", step), (tmp_path / "run" / "checkpoints" / str(step), None)):
            trained = load_trained(path, number)
            assert trained.novel_offset == offset
            assert not trained.settings["evals"]["val"]["choose_novel_offset"]
    model = larvseg_jax.Segmenter.load(tmp_path / "run")
    model.save(tmp_path / "m.safetensors")
    assert larvseg_jax.Segmenter.load(tmp_path / "m.safetensors").trained.novel_offset == logged[2]
    summary = evaluate.evaluate_checkpoint(tmp_path / "run")["val"]
    last = [x for x in read_history(tmp_path / "run") if x["kind"] == "eval"][-1]
    assert summary.mean_iou == pytest.approx(last["mIoU"], abs=1e-9)
    (tmp_path / "run" / "metrics.jsonl").unlink()
    capsys.readouterr()
    assert load_trained(tmp_path / "run").novel_offset == 0.0
    assert "has chosen no novel_offset yet" in " ".join(capsys.readouterr().out.split())


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        (["--novel_offset=few"], '--novel_offset=few: give a number, or "choose"'),
        (["--novel_offset=1", "--vocabulary_curve=c.json"], "--novel_offset and --vocabulary_curve do not go together"),
    ],
)
def test_a_wrong_offset_is_answered(flags, message, tmp_path, monkeypatch, capsys):
    monkeypatch.setattr("larvseg_jax.commands.evaluate.check_model", lambda *_: None)
    with pytest.raises(SystemExit) as error:
        cli.run("evaluate", [f"--run={tmp_path}", *flags])
    assert error.value.code == 2
    assert message in capsys.readouterr().err
