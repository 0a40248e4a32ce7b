"""The page of a grid: every number recomputed by hand and traced to its run, nothing guessed."""

import json
import math

import pytest

from larvseg_jax.errors import UserError
from larvseg_jax.grid.report import write_report
from tests.grid.fake import finish, planned
from tests.report.test_statistics import by_hand

pytestmark = [
    pytest.mark.filterwarnings("ignore:the load_module:DeprecationWarning"),
    pytest.mark.usefixtures("in_the_checkout_without_a_device"),
]

SCORES = {  # row -> seed -> (mIoU, mIoU_novel); nothing lies between two roundings
    "base|line": {0: (0.05, 0.02), 1: (0.0474, 0.0036), 2: (0.06, 0.01)},
    "LarvSeg": {0: (0.0757, 0.1062), 1: (0.0661, 0.1036)},
    "alone": {2: (0.07, math.nan)},
    "late": {},
}


def tables_of(page: str) -> list[list[dict[str, str]]]:
    """The tables of a page, a dictionary for each line."""
    found = []
    for block in page.split("\n\n"):
        lines = [
            [cell.strip() for cell in line.replace(r"\|", "¦").strip("|").split("|")]
            for line in block.splitlines()
            if line.startswith("|")
        ]
        if lines:
            found.append([dict(zip(lines[0], line, strict=True)) for line in lines[2:]])
    return found


def as_printed(values, sign="") -> str:
    mean, error = by_hand([100 * value for value in values])
    return f"{mean:{sign}.2f} ± {error:.2f}"


def plan_of(tmp_path, commits=("abc123",)):
    found = planned(tmp_path / "out", *SCORES, seeds=(0, 1, 2), scores=("mIoU", "mIoU_novel"))
    jobs = [(job, name, seed) for (_, name, seed), job in found.jobs.items() if seed in SCORES[name]]
    for place, (job, name, seed) in enumerate(jobs):
        mean, novel = SCORES[name][seed]
        finish(job, commits[place % len(commits)], mIoU=mean, mIoU_novel=None if math.isnan(novel) else novel)
    return found


def test_means_errors_and_paired_differences(tmp_path):
    page = tmp_path / "docs" / "results_x.md"
    write_report(plan_of(tmp_path), "larvseg grid x.py --out=DIR", page)
    text = page.read_text()
    rows, _ = tables_of(text)
    base, larvseg, alone, late = rows
    assert base["row"] == "base¦line"
    assert (base["seeds"], larvseg["seeds"], alone["seeds"], late["seeds"]) == ("3 of 3", "2 of 3", "1 of 3", "0 of 3")
    assert base["mIoU"] == as_printed([0.05, 0.0474, 0.06])
    assert larvseg["mIoU_novel"] == as_printed([0.1062, 0.1036])
    assert (base["Δ mIoU"], base["Δ mIoU_novel"]) == ("reference", "reference")
    assert larvseg["Δ mIoU"] == as_printed([0.0757 - 0.05, 0.0661 - 0.0474], "+") + " (2)"
    assert larvseg["Δ mIoU_novel"] == as_printed([0.1062 - 0.02, 0.1036 - 0.0036], "+") + " (2)"
    assert (alone["mIoU"], alone["Δ mIoU"]) == ("7.00", "+1.00 (1)")  # one seed has no error
    assert (alone["mIoU_novel"], alone["Δ mIoU_novel"]) == ("–", "–")  # undefined
    assert (late["mIoU"], late["Δ mIoU"], late["runs"]) == ("not yet run", "–", "")
    picture = page.parent / "results_x_t.png"
    assert picture.read_bytes().startswith(b"\x89PNG")
    assert f"![A title]({picture.name})" in text
    assert "`larvseg grid x.py --out=DIR`" in text


def test_every_number_can_be_traced_to_its_runs(tmp_path):
    found = plan_of(tmp_path)
    write_report(found, "x", tmp_path / "x.md")
    text = (tmp_path / "x.md").read_text()
    rows, runs = tables_of(text)
    by_number = {run["#"]: run for run in runs}
    assert len(by_number) == 6
    for row in rows:
        name = row["row"].replace("¦", "|")
        numbers = [number for number in row["runs"].split(", ") if number]
        assert [by_number[number]["seed"] for number in numbers] == [str(seed) for seed in SCORES[name]]
        for number in numbers:
            run = by_number[number]
            job = found.jobs["t", name, int(run["seed"])]
            assert run["folder"] == job.folder.name
            assert run["config"] == "`tests/tiny.py`"
            assert run["options"] == f"`log_every={2 + [*SCORES].index(name)}`"
            assert (run["commit"], run["date"], run["machine"]) == ("abc123", "2026-11-27", "1 × H100 (gpu)")
            assert run["steps"] == "12"
    assert "6 runs are not yet run, or have not ended" in text
    assert str(tmp_path) not in text  # of a machine
    assert "different code" not in text


def test_runs_of_different_commits_are_said(tmp_path):
    write_report(plan_of(tmp_path, commits=("abc123", "def456")), "x", tmp_path / "x.md")
    text = (tmp_path / "x.md").read_text()
    assert "**These runs are of different code.** Runs by commit: abc123 (3), def456 (3)." in text


def test_a_run_that_was_resumed_by_other_code_says_both(tmp_path):
    found = plan_of(tmp_path)
    job = found.jobs["t", "alone", 2]
    then = {"time": "2026-11-28T01:02:03+0000", "event": "resumed", "step": 3, "details": [], "commit": "def456"}
    with (job.folder / "history.jsonl").open("a") as file:
        file.write(json.dumps(then) + "\n")
    write_report(found, "x", tmp_path / "x.md")
    (run,) = (run for run in tables_of((tmp_path / "x.md").read_text())[1] if run["folder"] == job.folder.name)
    assert (run["commit"], run["date"]) == ("abc123, def456", "2026-11-27, 2026-11-28")
    assert run["machine"] == "1 × H100 (gpu), not recorded"
    assert "Runs by commit: abc123 (6), def456 (1)." in (tmp_path / "x.md").read_text()


def test_runs_that_have_not_ended_are_not_shown(tmp_path):
    found = plan_of(tmp_path)
    cut, unreported = (found.jobs["t", "LarvSeg", seed] for seed in (0, 1))
    lines = (cut.folder / "metrics.jsonl").read_text().splitlines()
    (cut.folder / "metrics.jsonl").write_text(lines[0] + "\n")  # the evaluation of step 6
    (unreported.folder / "report.html").unlink()
    write_report(found, "x", tmp_path / "x.md")
    rows = tables_of((tmp_path / "x.md").read_text())[0]
    assert (rows[1]["seeds"], rows[1]["mIoU"]) == ("0 of 3", "not yet run")


def test_nothing_was_run(tmp_path):
    write_report(planned(tmp_path, "a", "b"), "x", tmp_path / "x.md")
    text = (tmp_path / "x.md").read_text()
    assert [row["mIoU"] for row in tables_of(text)[0]] == ["not yet run"] * 2
    assert "4 runs are not yet run" in text
    assert "](" not in text
    assert not list(tmp_path.glob("*.png"))


def test_a_score_that_runs_do_not_have_is_one_line(tmp_path):
    found = planned(tmp_path, "a", seeds=(0,), scores=("mIoU", "mIOU_novel"))
    finish(found.jobs["t", "a", 0], mIoU=0.5, mIoU_novel=0.25)
    with pytest.raises(UserError, match="has no score mIOU_novel: let the table show some of mIoU, mIoU_novel"):
        write_report(found, "x", tmp_path / "x.md")
