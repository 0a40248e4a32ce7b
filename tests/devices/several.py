"""Starts several processes of one run of tests/tiny.py on this machine, and says what became of them."""

import re
import socket
import subprocess
import sys
from pathlib import Path

from tests.child import environment

REPOSITORY = Path(__file__).parent.parent.parent
GLOO = ("[Gloo] Rank ", " is connected to ", " peer ranks. ", "Expected number of connected peer ranks is : ")

# train.py, and a list of the files and folders that its Python makes, changes or moves.
WATCHED = """
import os, runpy, sys
touched = open(sys.argv[1], "w", buffering=1)
def watch(event, arguments):
    writes = event == "open" and arguments[2] & (os.O_WRONLY | os.O_RDWR)
    if (writes or event in ("os.mkdir", "os.rename", "os.remove")) and not isinstance(arguments[0], int):
        for name in arguments[: 2 if event == "os.rename" else 1]:
            print(os.fsdecode(name), file=touched)
sys.argv[:2] = ["train.py"]
sys.addaudithook(watch)
runpy.run_path("train.py", run_name="__main__")
"""


def start(workdir, *options, devices=(4, 4), own=()):
    """Processes of so many devices each, one run of tests/tiny.py; what they print goes to files beside its folder.

    `options` are those of all of them, `own` those of each.
    """
    with socket.socket() as free:
        free.bind(("localhost", 0))
        port = free.getsockname()[1]
    processes = []
    for i, count in enumerate(devices):
        joining = [f"--coordinator=localhost:{port}", f"--num_processes={len(devices)}", f"--process_id={i}"]
        command = [sys.executable, "-c", WATCHED, f"{workdir}_{i}_touched.txt", "--config=tests/tiny.py"]
        command += [f"--config.workdir={workdir}", *options, *(own[i] if i < len(own) else ()), *joining]
        with printed(workdir, i).open("w") as out:
            done = subprocess.Popen(
                command,
                cwd=REPOSITORY,
                env=environment(count, JAX_COMPILATION_CACHE_DIR=f"{workdir}_programs"),
                stdout=out,
                stderr=out,
            )
        processes.append(done)
    return processes


def printed(workdir, process):
    return workdir.parent / f"{workdir.name}_{process}.txt"


def printed_text(workdir, process):
    """What it printed, but for the lines of Gloo, whose threads write them piece by piece into each other's."""
    text = printed(workdir, process).read_text()
    for piece in GLOO:
        text = text.replace(piece, "")
    return text if re.search(r"[^\d\s]", text) else ""


def touched(workdir, process):
    """What a process made, changed or moved in the run's folder."""
    paths = map(Path, Path(f"{workdir}_{process}_touched.txt").read_text().splitlines())
    return {path for path in paths if workdir in path.parents}


def assert_all_finish(workdir, processes):
    assert exit_codes(processes) == [0] * len(processes), printed(workdir, 1).read_text()[-3000:]


def exit_codes(processes):
    try:
        return [process.wait(timeout=400) for process in processes]
    finally:
        for process in processes:
            process.kill()
