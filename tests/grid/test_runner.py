"""The trainings of a grid as processes: run once, resumed, stopped, failing, and in use by others."""

import os
import signal
import threading
import time

import pytest

from larvseg_jax.errors import Stopped, UserError
from larvseg_jax.grid.results import read_result
from larvseg_jax.grid.runner import Runner
from larvseg_jax.training.lock import locked
from tests.grid.fake import command, finish, planned

pytestmark = [
    pytest.mark.filterwarnings("ignore:the load_module:DeprecationWarning"),
    pytest.mark.usefixtures("in_the_checkout_without_a_device"),
]


def lives(job) -> int:
    """How many processes have begun it."""
    file = job.folder / "lives.txt"
    return len(file.read_text().splitlines()) if file.exists() else 0


def test_what_is_missing_is_run_once_and_what_is_finished_never(tmp_path, capsys):
    jobs = planned(tmp_path, "a", "b").needed()
    finish(jobs[2], mIoU=0.1)
    for _ in range(2):
        runner = Runner(jobs, 3, command())
        runner.run()
        assert not runner.failed
        assert not runner.in_use
    assert [lives(job) for job in jobs] == [1, 1, 0, 1]
    assert read_result(jobs[0]).scores["mIoU"] == 0.25
    assert read_result(jobs[2]).scores["mIoU"] == 0.1
    printed = capsys.readouterr().out
    assert "1 of 4 runs are finished, 36 steps are to be taken" in printed
    assert f"{jobs[0].folder.name} (a): done  mIoU 25.00  mIoU_base 50.00" in printed
    assert "steps of all runs 36/36" in printed
    assert "4 of 4 runs are finished, 0 steps are to be taken" in printed


def test_a_run_that_fails_stops_no_other_and_is_named_with_its_last_line(tmp_path, capsys):
    jobs = planned(tmp_path, "bad", "empty", "good", seeds=(0,)).needed()
    runner = Runner(jobs, 1, command("bad:fail", "empty:empty"))
    runner.run()
    bad, empty, good = jobs
    assert [job for job, _ in runner.failed] == [bad, empty]
    assert runner.failed[0][1].startswith("error: the data is wrong: mend it (all of it: ")
    assert runner.failed[1][1] == "it ended without its last scores"
    log = tmp_path / "logs" / f"{bad.folder.name}.txt"
    assert str(log) in runner.failed[0][1]
    assert log.read_text().splitlines()[0] == "first line"
    assert read_result(good) is not None
    assert f"{bad.folder.name} (bad): failed with exit code 2: error: the data is wrong" in capsys.readouterr().out
    runner = Runner(jobs, 1, command())  # mended: the same command runs it again
    runner.run()
    assert not runner.failed
    assert [lives(job) for job in jobs] == [2, 2, 1]


def test_a_run_that_another_process_trains_is_left_to_it(tmp_path, capsys, monkeypatch):
    monkeypatch.setattr("jax.process_index", lambda: 0)  # for the lock's owner
    jobs = planned(tmp_path, "theirs", "ours", seeds=(0,)).needed()
    with locked(jobs[0].folder):
        runner = Runner(jobs, 2, command())
        runner.run()
    assert [job for job, _ in runner.in_use] == [jobs[0]]
    assert not runner.failed
    assert [lives(job) for job in jobs] == [0, 1]
    printed = capsys.readouterr().out
    assert f"{jobs[0].folder.name} (theirs): is trained by another run (process {os.getpid()} on " in printed


def test_what_another_process_has_finished_meanwhile_is_not_run_again(tmp_path):
    jobs = planned(tmp_path, "a", "b", seeds=(0,)).needed()
    runner = Runner(jobs, 1, command())
    finish(jobs[1], mIoU=0.1)
    runner.run()
    assert [lives(job) for job in jobs] == [1, 0]


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_grid_that_is_stopped_lets_its_runs_save_and_goes_on(tmp_path, capsys, number):
    jobs = planned(tmp_path, "a", "b", "c", seeds=(0,)).needed()
    assert threading.current_thread() is threading.main_thread()  # which alone hears signals

    def interrupt():
        deadline = time.monotonic() + 300
        while not all((job.folder / "ready.txt").exists() for job in jobs[:2]) and time.monotonic() < deadline:
            time.sleep(0.01)
        os.kill(os.getpid(), number)

    thread = threading.Thread(target=interrupt)
    before = signal.getsignal(number)
    runner = Runner(jobs, 2, command("a:wait", "b:wait"))
    thread.start()
    with pytest.raises(Stopped, match="the same command goes on") as stopped:
        runner.run()
    thread.join()
    assert stopped.value.code == 128 + number
    assert signal.getsignal(number) == before
    assert [(job.folder / "signal.txt").read_text() for job in jobs[:2]] == ["SIGTERM"] * 2
    assert [lives(job) for job in jobs] == [1, 1, 0]
    capsys.readouterr()
    Runner(jobs, 2, command("a:wait", "b:wait")).run()
    assert [lives(job) for job in jobs] == [2, 2, 1]
    printed = capsys.readouterr().out
    assert f"{jobs[0].folder.name} (a): goes on from step 5" in printed
    assert "0 of 3 runs are finished, 26 steps are to be taken" in printed  # 12 + 2 * (12 - 5)


@pytest.mark.parametrize(("at_once", "own", "found"), [(1, None, "0.900"), (3, None, "0.300"), (3, "0.5", "0.5")])
def test_runs_share_a_gpu(tmp_path, monkeypatch, at_once, own, found):
    monkeypatch.delenv("XLA_PYTHON_CLIENT_MEM_FRACTION", raising=False)
    monkeypatch.delenv("XLA_CLIENT_MEM_FRACTION", raising=False)
    if own:
        monkeypatch.setenv("XLA_CLIENT_MEM_FRACTION", own)
    (job,) = planned(tmp_path, "a", seeds=(0,)).needed()
    Runner([job], at_once, command()).run()
    assert (job.folder / "lives.txt").read_text() == f"{found}\n"


def test_the_users_own_older_variable_is_not_doubled(tmp_path, monkeypatch):
    """JAX refuses to start with both."""
    monkeypatch.delenv("XLA_CLIENT_MEM_FRACTION", raising=False)
    monkeypatch.setenv("XLA_PYTHON_CLIENT_MEM_FRACTION", "0.4")
    (job,) = planned(tmp_path, "a", seeds=(0,)).needed()
    Runner([job], 2, command()).run()
    assert (job.folder / "lives.txt").read_text() == "None\n"


def test_a_folder_with_a_run_of_another_config_is_refused(tmp_path):
    first, second = planned(tmp_path, "a", "b", seeds=(0,)).needed()
    finish(first, mIoU=0.1)
    (second.folder).mkdir()
    for file in first.folder.iterdir():
        (second.folder / file.name).write_bytes(file.read_bytes())
    assert read_result(first) is not None
    with pytest.raises(UserError, match=r"config.json is of another config than \w{8}: move the run away"):
        read_result(second)
    (second.folder / "config.json").write_text("[")
    with pytest.raises(UserError, match="config.json cannot be read"):
        read_result(second)
