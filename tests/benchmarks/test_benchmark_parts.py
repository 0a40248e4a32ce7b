"""Parts of a benchmark, stopped from outside."""

import os
import signal
import subprocess
import sys
import time

PARENT = """
import sys
from benchmarks._parts import end_parts_when_stopped, run_part
end_parts_when_stopped()
child = "import os, pathlib, sys, time; pathlib.Path(sys.argv[1]).write_text(str(os.getpid())); time.sleep(60)"
run_part([sys.executable, "-c", child, sys.argv[1]], 60)
"""


def alive(process):
    """Whether a process runs; one that has ended and whose parent has not asked for it does not."""
    try:
        with open(f"/proc/{process}/stat") as file:
            return file.read().rpartition(")")[2].split()[0] != "Z"
    except FileNotFoundError:
        return False


def until(condition, seconds=60):
    end = time.monotonic() + seconds
    while not (found := condition()) and time.monotonic() < end:
        time.sleep(0.05)
    return found


def test_a_stopped_benchmark_ends_its_part(tmp_path):
    note = tmp_path / "child"
    parent = subprocess.Popen([sys.executable, "-c", PARENT, str(note)])
    try:
        assert until(lambda: note.is_file() and note.read_text()), "the part has not begun"
        child = int(note.read_text())
        assert alive(child)
        parent.send_signal(signal.SIGTERM)
        assert parent.wait(60) == 128 + signal.SIGTERM
        assert until(lambda: not alive(child), 10)
    finally:
        parent.kill()
        if note.is_file() and alive(child := int(note.read_text())):
            os.kill(child, signal.SIGKILL)
