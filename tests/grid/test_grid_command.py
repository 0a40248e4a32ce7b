"""larvseg grid as people call it: a real small grid, interrupted and resumed; and what is wrong with a command line."""

import re
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from larvseg_jax import cli
from larvseg_jax.grid.description import load_grid
from larvseg_jax.grid.plan import plan
from larvseg_jax.report.metric_log import read_history
from larvseg_jax.training import history
from tests import tiny
from tests.child import environment
from tests.grid.test_grid_page import tables_of

pytestmark = pytest.mark.filterwarnings("ignore:the load_module:DeprecationWarning")

REPOSITORY = Path(__file__).parents[2]
PATIENCE = 1500.0  # seconds; a machine may be busy
GRID = """
from larvseg_jax import cli
from larvseg_jax.grid.description import Grid, Row, Table

TINY = "tests/tiny.py"
STEPS = {"total_steps": 40, "checkpoint.every": 10, "evals.val.every": 1000, "gallery": 0}


def get_grid():
    rows = (Row("baseline", TINY, STEPS | {"streams.tags.lambda_aux": 0.0}), Row("LarvSeg", TINY, STEPS))
    broken = Row("broken", TINY, STEPS | {"streams.tags.source.folder": "nowhere"})
    return Grid((Table("t", "Tiny", (*rows, broken), "baseline"), Table("u", "U", rows[1:], "LarvSeg")), (0,))
"""


@pytest.fixture
def grid(tmp_path, monkeypatch) -> str:
    monkeypatch.chdir(REPOSITORY)
    monkeypatch.setenv("LARVSEG_DATA", str(tiny.write_data(tmp_path / "data").parent))
    (tmp_path / "grid.py").write_text(GRID)
    return str(tmp_path / "grid.py")


def larvseg_grid(*arguments: str) -> subprocess.Popen:
    words = [sys.executable, "-m", "larvseg_jax", "grid", *arguments]
    pipes = dict(stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    return subprocess.Popen(words, cwd=REPOSITORY, env=environment(), **pipes)


def end(process: subprocess.Popen) -> tuple[int, str, str]:
    printed, errors = process.communicate(timeout=PATIENCE)
    return process.returncode, printed, errors


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["configs/grids/voc_animals.py"], "--out is missing: grid --help lists the flags"),
        (["--out={}/x"], "give one grid: larvseg grid configs/grids/"),
        (["configs/grids/none.py", "--out={}/x"], "there is no grid configs/grids/none.py: there are configs/grids/"),
        (["GRID", "--out={}/x", "--only=v", "--jobs=0"], "--only=v is no table of the grid: use one of t, u"),
        (["GRID", "--out={}/x", "--seeds=0,x"], "--seeds=0,x is not a list of whole numbers: give 0,1,2"),
        (["GRID", "--out={}/x", "--seeds=0,0", "--jobs=0"], "seed 0 is there twice"),
        (["GRID", "--out={}/x", "--set=9"], "--set=9 sets nothing: give an option of the config, --set=total_steps="),
        (
            ["GRID", "--out={}/x", "--set=stepz=9", "--jobs=0"],
            "table t, row 'baseline': there is no option --config.stepz",
        ),
        (["GRID", "--out={}/x", "--jobs=-1"], "--jobs=-1: use 0 or more"),
        (["GRID", "--out={}/x", "--report=x.txt"], "--report=x.txt cannot be written: give a name that ends in .md"),
    ],
)
def test_what_is_wrong_with_a_command_line_is_one_line(grid, tmp_path, capsys, arguments, message):
    words = [grid if word == "GRID" else word.format(tmp_path) for word in arguments]
    with pytest.raises(SystemExit) as left:
        cli.run("grid", words)
    assert left.value.code == 2
    (line,) = capsys.readouterr().err.strip().splitlines()
    assert line.startswith(f"error: {message}")


def test_no_jobs_is_a_report_of_what_there_is(grid, tmp_path):
    cli.run(
        "grid",
        [
            grid,
            f"--out={tmp_path}/runs",
            f"--report={tmp_path}/docs/x.md",
            "--jobs=0",
            "--seeds=3",
            "--set=data_root=a b",
        ],
    )
    text = (tmp_path / "docs" / "x.md").read_text()
    assert "3 runs are not yet run" in text
    assert "'--set=data_root=a b' --seeds=3`" in text
    assert not list((tmp_path / "runs").glob("*seed*"))


@pytest.mark.slow
def test_a_real_grid_is_interrupted_resumed_and_shown(grid, tmp_path, capsys):
    out = tmp_path / "runs"
    process = larvseg_grid(grid, f"--out={out}", "--jobs=1")  # two at once: test_runner.py
    deadline = time.monotonic() + PATIENCE
    first = plan(load_grid(grid), out).jobs["t", "baseline", 0]
    while not any(line["step"] >= 2 for line in read_history(first.folder)):
        assert process.poll() is None, process.communicate()
        assert time.monotonic() < deadline
        time.sleep(0.01)
    process.send_signal(signal.SIGINT)
    code, printed, errors = end(process)
    assert (code, errors.strip()) == (130, "stopped: the same command goes on"), printed
    assert "not yet run" in (out / "results.md").read_text()
    saved = max(int(folder.name) for folder in (first.folder / "checkpoints").iterdir() if folder.name.isdecimal())
    assert 0 < saved < 40
    assert not list(out.glob("*/run.lock"))

    code, printed, errors = end(larvseg_grid(grid, f"--out={out}", "--jobs=2"))
    assert f"{first.folder.name} (baseline): goes on from step {saved}" in printed
    assert code == 2, printed
    assert re.fullmatch(r"error: tiny-\w+-seed0 \(broken\) failed: error: .*nowhere.*", errors.strip())
    starts = [event["step"] for event in history.read(first.folder) if event["event"] != "warning"]
    assert starts == [0, saved]

    rows, same, runs = tables_of((out / "results.md").read_text())
    jobs = [plan(load_grid(grid), out).jobs["t", name, 0] for name in ("baseline", "LarvSeg")]
    scores = [100 * line["mIoU"] for job in jobs for line in read_history(job.folder) if line.get("name") == "val"]
    baseline, larvseg, broken = rows
    assert (baseline["mIoU"], larvseg["mIoU"], broken["mIoU"]) == (*(f"{x:.2f}" for x in scores), "not yet run")
    assert larvseg["Δ mIoU"] == f"{scores[1] - scores[0]:+.2f} (1)"
    assert same[0]["runs"] == larvseg["runs"]  # trained once
    assert [run["folder"] for run in runs] == [job.folder.name for job in jobs]
    assert all(re.fullmatch(r"[0-9a-f]{12}(-dirty)?", run["commit"]) for run in runs)
    assert all(re.fullmatch(r"1 × cpu \(cpu\), \d+ cores? of .+", run["machine"]) for run in runs)

    before = {file: file.stat().st_mtime_ns for file in out.glob("tiny*/**/*") if file.is_file()}
    cli.run("grid", [grid, f"--out={out}", "--only=u"])
    assert "1 of 1 runs are finished" in capsys.readouterr().out
    assert before == {file: file.stat().st_mtime_ns for file in out.glob("tiny*/**/*") if file.is_file()}
