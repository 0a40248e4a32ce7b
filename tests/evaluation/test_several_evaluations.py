"""A run with two evaluations: each by its name in the log and in the report; the first by name chooses the best."""

import base64
import dataclasses
import re
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from configs import common
from larvseg_jax.assemble import fresh_state
from larvseg_jax.config import from_config
from larvseg_jax.devices.mesh import make_mesh
from larvseg_jax.evaluate import evaluate_checkpoint
from larvseg_jax.evaluation.evaluator import Evaluation
from larvseg_jax.evaluation.metrics import SegmentationCounts
from larvseg_jax.evaluation.windows import Windows
from larvseg_jax.report.metric_log import read_history
from larvseg_jax.train import best_score, train
from larvseg_jax.trained import load_trained
from larvseg_jax.vocabulary import Vocabulary
from larvseg_jax.weights.checkpoint import Checkpoints
from larvseg_jax.weights.record import Record
from tests import tiny

BEST = "aAcc"
TOTAL = 6


def get_config(workdir, root):
    """`val` stands first, but the first by name is `pairs`: two classes only, seldom, on photos of another split."""
    config = tiny.get_config()
    config.workdir, config.data_root = str(workdir), str(root)
    config.update(total_steps=TOTAL, gallery=1)
    config.evals.val.update(every=3)
    config.evals.pairs = common.evaluation(
        source=common.source(folder="tiny", split="train"),
        classes=("background", "red"),
        scale=(64, 16),
        window=16,
        stride=16,
        every=2,
        limit=5,
    )
    config.checkpoint.update(every=100, keep_last=1, best=BEST)
    return config


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    root = tmp_path_factory.mktemp("several")
    tiny.write_data(root)
    train(from_config(get_config(root / "run", root)))
    return root / "run"


@pytest.fixture(scope="module")
def logged(folder):
    """(name, step) -> line of the log."""
    return {(line["name"], line["step"]): line for line in read_history(folder) if line["kind"] == "eval"}


@pytest.mark.slow
def test_each_is_logged_by_its_name_at_its_own_steps(logged):
    assert set(logged) == {*(("pairs", step) for step in (2, 4, 6)), *(("val", step) for step in (3, 6))}
    for line in logged.values():
        assert 0 <= line[BEST] <= 1
    # "pairs" scores other photos and other classes: no line is the other's.
    assert not {line[BEST] for key, line in logged.items() if key[0] == "val"} & {
        line[BEST] for key, line in logged.items() if key[0] == "pairs"
    }


@pytest.mark.slow
def test_the_best_checkpoint_is_that_of_the_first_by_name(folder, logged):
    scores = {step: line[BEST] for (name, step), line in logged.items() if name == "pairs"}
    with Checkpoints(folder, read_only=True) as checkpoints:
        kept = checkpoints.steps()
    assert kept[-1] == TOTAL
    assert len(kept) <= 2
    assert max(scores.get(step, 0.0) for step in kept) == max(scores.values())


def evaluation_with(right):
    """An evaluation in which so many of ten pixels are right."""
    vocabulary = Vocabulary(("cat", "dog"), ("cat",), ("dog",))
    counts = SegmentationCounts(*(np.array(pixels, np.int64) for pixels in ([right, 0], [right, 10 - right], [10, 0])))
    return Evaluation(counts.summary(vocabulary.classes, vocabulary), {})


@pytest.mark.slow
def test_what_chooses_the_best_checkpoint(tmp_path):
    """Scores of both at every step, the one rising while the other falls; at step 4 only the second was made."""
    run, mesh = from_config(get_config(tmp_path, tmp_path)), make_mesh(1, 1, jax.devices()[:1])
    state = fresh_state(run, mesh)
    record = Record.of(run.settings, run.vocabulary.classes, {}, state)
    made = {1: dict(pairs=3, val=9), 2: dict(pairs=8, val=2), 3: dict(pairs=5, val=1), 4: dict(val=10), 5: {}}
    with Checkpoints(tmp_path, run.checkpoint.keep_last, run.checkpoint.best) as checkpoints:
        for step, scores in made.items():
            score = best_score(run, {name: evaluation_with(right) for name, right in scores.items()})
            assert score == (scores["pairs"] / 10 if "pairs" in scores else None)
            checkpoints.save(record, dataclasses.replace(state, step=jnp.int32(step)), step, score)
    with Checkpoints(tmp_path, read_only=True) as checkpoints:
        assert checkpoints.steps() == [2, 5]


@pytest.mark.slow
def test_both_are_in_the_report(folder, logged):
    page = (folder / "report.html").read_text()
    headings = [re.sub(r"<small>.*", "", h) for h in re.findall(r"<h2>(.*?)</h2>", page, re.DOTALL)]
    assert [h for h in headings if h in ("pairs", "val")] == ["pairs", "val"]
    first = "Photos, those with novel classes first"
    assert {f"{first}: pairs", f"{first}: val", "The best, by the mean IoU of what a photo shows: val"} <= {*headings}
    tiles = re.findall(r'<div class="name">aAcc</div>\s*<div class="value">([\d.]+)</div>', page)
    assert tiles == [f"{100 * logged[name, TOTAL][BEST]:.1f}" for name in ("pairs", "val")]
    for name, of_masked in (("pairs", True), ("val", False)):  # photos of each one's own split
        part = page.partition(f"<h2>{first}: {name}")[2].partition("<h2>")[0]
        photos = re.findall(r"<header><b>(.*?)</b>", part)
        assert [int(photo[1:]) < tiny.MASKED for photo in photos] == [of_masked]
    for url in re.findall(r'src="data:image/jpeg;base64,([^"]+)"', page):
        assert base64.b64decode(url)[:2] == b"\xff\xd8"


@pytest.mark.slow
def test_the_terminal_says_which_is_which(folder, capsys):
    summaries = evaluate_checkpoint(folder)
    assert list(summaries) == ["pairs", "val"]
    assert (len(summaries["pairs"].names), len(summaries["val"].names)) == (2, 5)
    printed = capsys.readouterr().out
    assert re.search(r"^ *pairs *$.*^ *val *$", printed, re.DOTALL | re.MULTILINE)


@pytest.mark.slow
def test_scores_of_the_checkpoint_are_those_that_were_logged(folder, logged):
    for name, summary in evaluate_checkpoint(folder).items():
        line = logged[name, TOTAL]
        for score, value in summary.scalars().items():
            np.testing.assert_allclose(value, line[score], atol=1e-9, err_msg=f"{name} {score}")


@pytest.mark.slow
def test_photos_are_predicted_in_windows_of_the_first_by_name(folder):
    assert load_trained(folder).windows == Windows((64, 16), 16, 16)


def test_the_order_in_the_config_does_not_matter(tmp_path):
    config = get_config(tmp_path, tmp_path).to_dict()
    for names in (("val", "pairs"), ("pairs", "val")):
        run = from_config({**config, "evals": {name: config["evals"][name] for name in names}})
        assert list(run.evals) == ["pairs", "val"]
    assert run.workdir == Path(tmp_path)
