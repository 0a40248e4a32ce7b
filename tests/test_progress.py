"""What a log file gets to see."""

import types

import pytest

from larvseg_jax import progress


@pytest.fixture(autouse=True)
def clock(monkeypatch):
    """A clock that moves only when told."""
    now = [100.0]
    monkeypatch.setattr(progress, "time", types.SimpleNamespace(monotonic=lambda: now[0]))
    return now


def test_stage_tells_its_name_and_seconds(capsys, clock):
    timings = {}
    for _ in range(2):
        with progress.stage("compile", timings):
            clock[0] += 2.5
    assert capsys.readouterr().out.splitlines() == ["compile ...", "compile 2.5 s"] * 2
    assert timings == {"compile": 5.0}


def test_stage_that_fails_says_so(capsys, clock):
    def failing():
        with progress.stage("data"):
            clock[0] += 1
            raise ValueError("boom")

    with pytest.raises(ValueError, match="boom"):
        failing()
    assert "data stopped after 1.0 s" in capsys.readouterr().out


def test_train_lines_come_every_so_often_and_at_the_end(capsys, clock):
    metrics = {"loss": 2.0, "coco/L_seg": 1.5, "learning_rate": 0.1, "images_per_second": 40.0}
    with progress.TrainProgress(total=100, start=50) as bar:
        for step in range(51, 101):
            clock[0] += 1
            bar.update(step, metrics if step == 51 else {})
    lines = capsys.readouterr().out.splitlines()
    shown = "loss 2.000  coco/L_seg 1.500  40.0 images/s"
    assert lines == [
        f"step 70/100  {shown}  0:00:30 left",
        f"step 90/100  {shown}  0:00:10 left",
        f"step 100/100  {shown}  0:00:00 left",
    ]


def test_track_yields_all_and_ends_with_one_line(capsys):
    assert list(progress.track("abc", 3, "evaluation")) == ["a", "b", "c"]
    assert capsys.readouterr().out.splitlines() == ["evaluation 3/3  0:00:00 left"]
