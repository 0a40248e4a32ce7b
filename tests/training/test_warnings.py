"""Trainings that are made to go wrong say so: in the terminal, in history.jsonl, in the report."""

import html
import re

import pytest

from larvseg_jax.config import from_config
from larvseg_jax.train import train
from larvseg_jax.training import history
from tests import tiny

pytestmark = pytest.mark.usefixtures("one_device")


def config_of(tmp_path):
    config = tiny.get_config()
    config.data_root, config.workdir = str(tiny.write_data(tmp_path).parent), str(tmp_path / "run")
    config.gallery, config.checkpoint.every = 0, 1000
    return config


def said(config, capsys):
    """Step -> the warnings of the history, which are those of the terminal; the report has the last."""
    run = from_config(config)
    train(run)
    found = {event["step"]: event["details"] for event in history.read(run.workdir) if event["event"] == "warning"}
    out = " ".join(capsys.readouterr().out.split())
    for texts in found.values():
        for text in texts:
            assert f"warning: {text}" in out
    page = html.unescape((run.workdir / "report.html").read_text())
    shown = re.findall(r'<p class="warning"><b>warning</b> (.*?)</p>', page)
    assert shown == found.get(run.total_steps, [])
    return found


@pytest.mark.slow
def test_tags_that_swallow_the_pictures_and_pull_base_classes_down(tmp_path, capsys):
    config = config_of(tmp_path)
    config.total_steps, config.log_every, config.evals.val.every = 80, 5, 20
    config.streams.tags.update(lambda_cls=3.0, lambda_aux=0.0, always_tags=())
    config.optimizer.learning_rate = 1e-2
    found = said(config, capsys)
    assert all(any(text.startswith("classes known by tags win ") for text in texts) for texts in found.values())
    everything = [text for texts in found.values() for text in texts]
    assert any(
        re.match(r"base mIoU fell from [\d.]+ % at step \d+ to [\d.]+ % while L_seg fell", t) for t in everything
    )


@pytest.mark.slow
def test_classes_that_no_photo_teaches_and_a_bank_that_can_never_warm_up(tmp_path, capsys):
    """Their pixels are in the validation masks, and no tag and no mask of the training names them."""
    config = config_of(tmp_path)
    config.streams.tags.source.split = "train"
    config.streams.tags.update(tags_from="crop", classes=("background", *tiny.BASE), always_tags=())
    config.method.ca_classifier.warmup = 10**6
    found = said(config, capsys)
    assert found.keys() == {6, 12}
    (line,) = [text for text in found[12] if text.startswith("never predicted: ")]
    assert "blue" in line or "grey" in line
    (line,) = [text for text in found[12] if text.startswith("bank is ")]
    assert line.startswith("bank is 0.0 % ready at step 12 of 12: ")
