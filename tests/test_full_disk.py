"""A disk that is full costs what could not be written meanwhile, and nothing else."""

import dataclasses
import subprocess
import sys
import threading
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from larvseg_jax import assemble
from larvseg_jax import console as console_module
from larvseg_jax.config import from_config
from larvseg_jax.devices.mesh import make_mesh
from larvseg_jax.disk import refusal, write_text
from larvseg_jax.errors import UserError
from larvseg_jax.report.metric_log import MetricLog, read_history
from larvseg_jax.training.lock import locked
from larvseg_jax.training.state import TrainState
from larvseg_jax.weights import checkpoint
from larvseg_jax.weights.checkpoint import Checkpoints
from larvseg_jax.weights.record import Record
from larvseg_jax.weights.saves import Saves
from tests import tiny
from tests.child import environment
from tests.full_disk import full_disk

REPOSITORY = Path(__file__).parent.parent
STATES = [TrainState(jnp.int32(i), {"x": i + jnp.arange(3e4)}, (), ()) for i in range(8)]
RECORD = Record.of({"method": {}}, ("a",), {}, STATES[0])


def test_what_a_disk_says_is_told_from_other_errors():
    assert refusal(OSError(28, "x")) == "No space left on device"
    assert refusal(ValueError("RESOURCE_EXHAUSTED: ... [os_error_code='30']")) == "Read-only file system"
    assert refusal(ValueError("shapes (3,) and (4,)")) is None
    assert refusal(OSError("no number")) is None
    assert "clock has jumped" in refusal(TimeoutError("ChainedFuture completed 4/5 futures but timed out"))


def test_a_file_is_written_whole_or_stays_as_it_was(tmp_path):
    file = tmp_path / "new" / "report.html"
    write_text(file, "old")
    with full_disk(), pytest.raises(UserError, match=r"report.html cannot be written \(File too large\): make room"):
        write_text(file, "n" * 10_000)
    assert file.read_text() == "old"
    assert list(file.parent.iterdir()) == [file]
    write_text(file, "a name of bytes \udcff")
    assert file.read_text() == "a name of bytes \\udcff"


def test_a_checkpoint_that_found_no_room_costs_itself_only(tmp_path, capsys, caplog):
    with Checkpoints(tmp_path) as checkpoints:
        for step, score in ((1, 0.9), (2, 0.1), (3, 0.2)):
            checkpoints.save(RECORD, STATES[step], step, score)
        checkpoints.settle()
        with full_disk():
            for step in (4, 5):
                checkpoints.save(RECORD, STATES[step], step, 0.95)
                checkpoints.settle()
            assert checkpoints.steps() == [1, 2, 3]
        said = capsys.readouterr()
        assert said.out.count("\n") == 1  # once, not at every try
        assert "step 4 could not be written (File too large): make room; the run goes on" in said.out
        assert said.err + caplog.text == ""
        checkpoints.save(RECORD, STATES[6], 6, None)
        checkpoints.settle()
        assert "step 6 is saved: the disk takes checkpoints again" in capsys.readouterr().out
        # The best one stays although the scores of step 4 and 5 were better.
        assert checkpoints.steps() == [1, 3, 6]
        assert len(list((tmp_path / "checkpoints").iterdir())) == 3  # nothing half written takes up room
        np.testing.assert_array_equal(checkpoints.restore(6, STATES[0]).params["x"], STATES[6].params["x"])


def test_nothing_waits_for_a_checkpoint_whose_folder_could_not_be_made(tmp_path, monkeypatch):
    monkeypatch.setattr(checkpoint, "AGAIN_AFTER", 0.0)
    with Checkpoints(tmp_path) as checkpoints:
        checkpoints.save(RECORD, STATES[1], 1, None)
        checkpoints.settle()
        (tmp_path / "checkpoints").rename(tmp_path / "aside")
        (tmp_path / "checkpoints").write_text("no folder")
        checkpoints.save(RECORD, STATES[2], 2, None)
        checkpoints.settle()
        (tmp_path / "checkpoints").unlink()
        # A thread of the save that failed may be about to make the folder, so the one put back is not renamed onto it.
        (tmp_path / "checkpoints").mkdir(exist_ok=True)
        for kept in (tmp_path / "aside").iterdir():
            kept.rename(tmp_path / "checkpoints" / kept.name)
        # It may also still write into what the next save clears away, which then fails, too, and is tried anew.
        saves = Saves(checkpoints, RECORD, lambda: False)
        saves.insist(STATES[3], 3, None)
    assert checkpoints.steps() == [1, 3]
    for thread in threading.enumerate():  # for twenty minutes, and the end of the program for them
        if "orbax" in type(thread).__module__:
            thread.join(20)
            assert not thread.is_alive()


def test_an_error_that_is_no_disks_is_not_taken_for_one(tmp_path):
    with Checkpoints(tmp_path) as checkpoints, pytest.raises(TypeError):
        checkpoints.save(dataclasses.replace(RECORD, settings={"x": object()}), STATES[1], 1, None)


def test_the_last_state_waits_for_room(tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(checkpoint, "AGAIN_AFTER", 0.0)
    monkeypatch.setattr("larvseg_jax.weights.saves.time.sleep", lambda _: disk.close())
    with Checkpoints(tmp_path) as checkpoints:
        saves = Saves(checkpoints, RECORD, lambda: False)
        (disk := Disk()).fill()
        saves.insist(STATES[7], 7, None)
        assert checkpoints.steps() == [7]
    assert "the run is kept waiting until its last step is written" in capsys.readouterr().out


def test_who_stops_does_not_wait_for_room(tmp_path):
    with Checkpoints(tmp_path) as checkpoints:
        saves = Saves(checkpoints, RECORD, lambda: True)
        with full_disk():
            saves.insist(STATES[7], 7, None)
        assert not saves.written()


class Disk:
    def fill(self):
        self._full = full_disk()
        self._full.__enter__()

    def close(self):
        self._full.__exit__(None, None, None)


def test_a_run_that_found_no_room_for_its_lock_leaves_none_in_the_way(tmp_path):
    with full_disk(), pytest.raises(UserError, match=r"cannot write .*\(File too large\)"), locked(tmp_path):
        raise AssertionError
    with locked(tmp_path):  # at once, not after a minute
        pass


def test_lines_of_the_log_wait_for_room(tmp_path, capsys):
    with MetricLog(tmp_path) as log:
        log.write(1, "train", {"loss": 1.0})
        with full_disk():
            for step in range(2, 42):  # more than any queue holds
                log.write(step, "train", {"loss": 1.0})
        assert [line["step"] for line in read_history(tmp_path)] == [1]
        with (tmp_path / "metrics.jsonl").open("a") as file:
            file.write('{"step": 2, "ki' * 1000)  # what a disk with a little room had taken
        log.write(42, "train", {"loss": 1.0})
        assert [line["step"] for line in read_history(tmp_path)] == list(range(1, 43))
        assert (tmp_path / "metrics.jsonl").read_bytes().count(b"{") == 42
        with full_disk():
            log.write(43, "train", {"loss": 1.0})
    assert [line["step"] for line in read_history(tmp_path)] == list(range(1, 44))
    assert capsys.readouterr().out.count("metrics.jsonl cannot be written (File too large)") == 2


def test_a_log_file_on_the_full_disk_does_not_stop_who_prints(tmp_path, monkeypatch):
    with (tmp_path / "log").open("w") as file:
        monkeypatch.setattr(sys, "stdout", file)
        output = console_module._Output(markup=False)
        with full_disk():
            output.print("meanwhile")
        output.print("afterwards")
        monkeypatch.undo()
    assert (tmp_path / "log").read_text() == "meanwhile\nafterwards\n"


@pytest.mark.slow
def test_a_run_goes_on_through_a_full_disk(tmp_path):
    config = tiny.get_config()
    config.data_root, config.workdir = str(tiny.write_data(tmp_path / "data").parent), str(tmp_path / "run")
    config.evals, config.gallery, config.total_steps, config.checkpoint.every, config.log_every = {}, 0, 60, 3, 1
    kept = "data_root", "workdir", "gallery", "total_steps", "log_every"
    flags = [f"--config.{name}={config[name]}" for name in kept]
    flags += ["--config.checkpoint.every=3", "--config.evals.val.every=100000"]
    command = [sys.executable, "train.py", "--config=tests/tiny.py", *flags]
    text = []
    with subprocess.Popen(
        command, cwd=REPOSITORY, env=environment(), text=True, stdout=subprocess.PIPE, stderr=subprocess.STDOUT
    ) as process:
        try:
            read_until("step 4/60", process, text)
            with full_disk(process.pid):
                read_until("could not be written (File too large)", process, text)
                begun = len(text)
                read_until("step ", process, text)
            read_until("the disk takes checkpoints again", process, text)
            text += process.stdout
            assert process.wait() == 0
        finally:
            process.kill()
    assert begun > 4
    assert "Traceback" not in "".join(text)
    logged = [line["step"] for line in read_history(tmp_path / "run") if line["kind"] == "train"]
    assert logged == list(range(1, 61))
    with Checkpoints(tmp_path / "run", read_only=True) as checkpoints:
        assert checkpoints.steps()[-1] == 60
        layout = assemble.state_layout(from_config(config), make_mesh(1, 1, jax.devices()[:1]))
        assert int(checkpoints.restore(60, layout).step) == 60


def read_until(wanted, process, text):
    for line in process.stdout:
        text.append(line)
        if wanted in line:
            return
    raise AssertionError("".join(text))


def test_the_exit_code_is_right_where_even_the_output_is_on_the_full_disk(tmp_path):
    said = "import resource, sys; from larvseg_jax import cli; print('x'); "
    limit = "resource.setrlimit(resource.RLIMIT_FSIZE, (0, resource.RLIM_INFINITY)); "
    with (tmp_path / "out").open("w") as out:
        done = subprocess.run(
            [sys.executable, "-c", f"{said}{limit}cli.fail('y')"], cwd=REPOSITORY, stdout=out, stderr=out, check=False
        )
    assert done.returncode == 2
