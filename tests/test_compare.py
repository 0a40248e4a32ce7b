"""Runs side by side: what the page says of made runs, and what is refused."""

import html
import json
import re

import pytest

from larvseg_jax import cli
from larvseg_jax.compare import compare
from larvseg_jax.errors import UserError
from larvseg_jax.report.metric_log import MetricLog
from larvseg_jax.report.scores import read_scores
from larvseg_jax.training.history import note


def write_run(folder, name, iou, **options):
    """A run with the IoU of three classes at its second evaluation."""
    folder.mkdir(parents=True)
    settings = {"name": name, "seed": 0, "optimizer": {"learning_rate": 0.01}, **options}
    (folder / "config.json").write_text(json.dumps(settings))
    classes = {
        of: {"group": group, "IoU": value, "accuracy": value, "pixels": 5, "photos": photos}
        for (of, group, photos), value in zip(
            (("cat", "base", 7), ("<dog>", "novel", 3), ("cow", "novel", 0)), iou, strict=True
        )
    }
    means = {"mIoU": sum(filter(None, iou)) / 3, "mIoU_base": iou[0], "mIoU_novel": iou[1]}
    scores = {"step": 20, "evals": {"val": {"means": means, "classes": classes}}}
    (folder / "scores.json").write_text(json.dumps(scores))
    with MetricLog(folder) as log:
        for step, factor in ((10, 0.5), (20, 1.0)):
            log.write(step, "eval", {score: factor * value for score, value in means.items()}, "val")
    note(folder, "started", 0, commit=f"c0mm1t{name}", devices="1 cpu", processor="a core", command="python train.py")
    return folder


@pytest.fixture
def runs(tmp_path):
    first = write_run(tmp_path / "a", "larvseg", (0.5, 0.25, None))
    return [first, write_run(tmp_path / "b", "baseline", (0.6, 0.05, None), optimizer={"learning_rate": 0.02})]


def rows(page):
    """The cells of each row, as read."""
    found = []
    for row in re.findall(r"<tr>(.*?)</tr>", page, re.S):
        cells = re.findall(r"<td[^>]*>(.*?)</td>", row, re.S)
        found.append([html.unescape(" ".join(re.sub(r"<[^>]*>", " ", cell).split())) for cell in cells])
    return [row for row in found if row]


def test_scores_classes_and_options_stand_side_by_side(runs, tmp_path):
    page = compare(runs, tmp_path / "page.html").read_text()
    assert not re.search(r"https?://|<script|<link|url\(", page)
    found = rows(page)
    assert ["mIoU_base", "50.0", "60.0 +10.0"] in found
    assert ["mIoU_novel", "25.0", "5.0 -20.0"] in found
    classes = [row for row in found if row[0] in ("cat", "<dog>", "cow")]
    assert classes == [["<dog>", "novel", "3", "25.0", "5.0 -20.0"], ["cat", "base", "7", "50.0", "60.0 +10.0"]]
    assert ["optimizer.learning_rate", "0.01", "0.02"] in found
    assert not any(row[0] == "seed" for row in found)  # it is the same
    assert ["commit", "c0mm1tlarvseg", "c0mm1tbaseline"] in found
    assert page.count("<img ") == 3  # mIoU, base, novel: nobody measured base alone


def test_the_command_writes_the_page(runs, tmp_path, capsys):
    cli.run("report", [*(f"--compare={run}" for run in runs), f"--out={tmp_path / 'page.html'}"])
    assert "page.html: 2 runs" in "".join(capsys.readouterr().out.split("\n")).replace("  ", " ")
    assert (tmp_path / "page.html").exists()


def test_runs_of_one_name_are_told_apart_by_their_folders(runs, tmp_path):
    same = write_run(tmp_path / "c", "larvseg", (0.5, 0.25, 0.1))
    page = compare([runs[0], same], tmp_path / "page.html").read_text()
    assert "<h1>a, c</h1>" in page
    assert ["cow", "novel", "0", "–", "10.0"] in rows(page)
    other = write_run(tmp_path / "d" / "a", "larvseg", (0.5, 0.25, 0.1))
    page = compare([runs[0], other], tmp_path / "page.html").read_text()
    assert f"<h1>{runs[0]}, {other}</h1>" in page


def one_run(runs):
    return runs[:1]


def twice(runs):
    return [runs[0], runs[0]]


def no_scores(runs):
    (runs[1] / "scores.json").unlink()
    return runs


def broken_scores(runs):
    (runs[1] / "scores.json").write_text("{}")
    return runs


def no_config(runs):
    (runs[1] / "config.json").unlink()
    return runs


def broken_config(runs):
    (runs[1] / "config.json").write_text("[]")
    return runs


def another_evaluation(runs):
    scores = json.loads((runs[1] / "scores.json").read_text())
    (runs[1] / "scores.json").write_text(json.dumps({"step": 1, "evals": {"test": scores["evals"]["val"]}}))
    return runs


@pytest.mark.parametrize(
    ("spoil", "message"),
    [
        (one_run, "there are not two runs: give --compare for each"),
        (twice, "there are not two runs"),
        (no_scores, r"b/scores\.json cannot be read .*: it is written when a training ends"),
        (broken_scores, r"b/scores\.json is no file of scores"),
        (no_config, r"b/config\.json cannot be read .*: give the folder of a run"),
        (broken_config, r"b/config\.json holds a list"),
        (another_evaluation, "no evaluation of the same name"),
    ],
)
def test_what_cannot_be_compared_is_said(runs, tmp_path, spoil, message):
    with pytest.raises(UserError, match=message):
        compare(spoil(runs), tmp_path / "page.html")


def test_scores_are_those_of_the_run(runs):
    assert read_scores(runs[0])["evals"]["val"]["classes"]["cat"]["IoU"] == 0.5
