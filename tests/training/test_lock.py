"""Two runs on one folder: the second is refused, a lock left behind is taken over, on one host and on a shared disk."""

import json
import os
import socket
import subprocess
import sys
import time

import pytest

from larvseg_jax.errors import UserError
from larvseg_jax.training import lock
from larvseg_jax.training.lock import FILE_NAME, locked


def test_the_lock_says_whose_it_is_and_goes_with_its_run(tmp_path):
    with locked(tmp_path / "run"):
        found = json.loads((tmp_path / "run" / FILE_NAME).read_text())
        assert (found["host"], found["pid"]) == (socket.gethostname(), os.getpid())
        assert found["since"].startswith(time.strftime("%Y-"))
    assert not (tmp_path / "run").exists()  # nothing was written into it


def test_a_second_run_is_refused(tmp_path):
    own = rf"is in use by another run \(process {os.getpid()} on .*\)"
    with locked(tmp_path), pytest.raises(UserError, match=own), locked(tmp_path):
        pytest.fail("entered twice")


def test_the_lock_of_a_killed_process_is_taken_over_and_said(tmp_path, capsys):
    code = "import os, pathlib, sys\nfrom larvseg_jax.training.lock import locked\n"
    code += "with locked(pathlib.Path(sys.argv[1])):\n    os._exit(9)"
    subprocess.run([sys.executable, "-c", code, tmp_path], check=False)
    assert (tmp_path / FILE_NAME).exists()
    with locked(tmp_path):
        assert json.loads((tmp_path / FILE_NAME).read_text())["pid"] == os.getpid()
    assert "took over the lock of a run that is gone" in capsys.readouterr().out
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(("silent", "free"), [(lock.STALE_AFTER - 20, False), (lock.STALE_AFTER + 20, True)])
def test_another_hosts_lock_is_judged_by_its_last_touch(tmp_path, silent, free):
    path = tmp_path / FILE_NAME
    path.write_text(json.dumps({"host": "elsewhere", "pid": 1, "since": "yesterday"}))
    then = time.time() - silent
    os.utime(path, (then, then))
    if free:
        with locked(tmp_path):
            pass
        return
    with pytest.raises(UserError, match="process 1 on elsewhere, since yesterday"), locked(tmp_path):
        pytest.fail("entered")
    assert [p.name for p in tmp_path.iterdir()] == [FILE_NAME]


def test_a_process_of_the_same_number_is_not_the_owner(tmp_path):
    """After a restart of the machine numbers are used again."""
    said = {"host": socket.gethostname(), "pid": os.getpid(), "since": "x", "process started": "1"}
    (tmp_path / FILE_NAME).write_text(json.dumps(said))
    with locked(tmp_path):
        assert json.loads((tmp_path / FILE_NAME).read_text())["since"] != "x"


def test_a_half_written_lock_is_respected_while_it_is_young(tmp_path):
    (tmp_path / FILE_NAME).write_text("{")
    with pytest.raises(UserError, match="in use"), locked(tmp_path):
        pytest.fail("entered")


def test_the_lock_is_touched_while_the_run_goes_on(tmp_path, monkeypatch):
    monkeypatch.setattr(lock, "TOUCHED_EVERY", 0.01)
    with locked(tmp_path):
        path = tmp_path / FILE_NAME
        os.utime(path, (1, 1))
        deadline = time.monotonic() + 10
        while path.stat().st_mtime == 1 and time.monotonic() < deadline:
            time.sleep(0.01)
        assert path.stat().st_mtime > 1


def test_who_uses_a_folder_can_be_asked_without_taking_it(tmp_path):
    assert lock.user_of(tmp_path / "none") is None
    with locked(tmp_path):
        assert lock.user_of(tmp_path).startswith(f"process {os.getpid()} on {socket.gethostname()}, since ")
    assert lock.user_of(tmp_path) is None
    (tmp_path / FILE_NAME).write_text(json.dumps({"host": "elsewhere", "pid": 1, "since": "yesterday"}))
    assert lock.user_of(tmp_path) == "process 1 on elsewhere, since yesterday"
    then = time.time() - lock.STALE_AFTER - 20
    os.utime(tmp_path / FILE_NAME, (then, then))
    assert lock.user_of(tmp_path) is None
    said = {"host": socket.gethostname(), "pid": os.getpid(), "since": "x", "process started": "1"}
    (tmp_path / FILE_NAME).write_text(json.dumps(said))  # of a process that is gone
    assert lock.user_of(tmp_path) is None
    assert [p.name for p in tmp_path.iterdir()] == [FILE_NAME]  # neither taken nor cleared


def test_a_folder_that_cannot_be_written_is_one_line(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(UserError, match="cannot write .*: give another workdir"), locked(tmp_path / "file" / "run"):
        pytest.fail("entered")
