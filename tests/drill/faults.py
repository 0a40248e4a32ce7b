"""What is done to a run. Each fault starts it, does its harm, and ends or outlives it; Failure if a promise is broken.

docs/reliability.md says what is promised.
"""

from __future__ import annotations

import contextlib
import json
import os
import random
import shutil
import signal
import subprocess
import time
from collections.abc import Callable, Iterator
from pathlib import Path

from tests.drill.supervised import Failure, Life, Run, killed
from tests.full_disk import full_disk

Fault = Callable[[Run, random.Random], None]


class NotHere(Exception):
    """This fault cannot be made on this machine."""


def kill_in_start_up(run: Run, rng: random.Random) -> None:
    """kill -9 somewhere between the first import and the first step."""
    life = run.start()
    time.sleep(rng.uniform(0.05, 10.0))
    killed(life)


def kill_in_steps(run: Run, rng: random.Random) -> None:
    """kill -9 after a few steps."""
    life = run.start()
    run.until_steps(life, rng.randint(1, 16))
    killed(life)


def kill_in_save(run: Run, rng: random.Random) -> None:
    """kill -9 while a checkpoint is being written."""
    life = run.start()
    run.until_saving(life)
    time.sleep(rng.uniform(0.0, 0.06))
    killed(life)


def sigterm(run: Run, rng: random.Random) -> None:
    """SIGTERM: the step under way ends and is saved."""
    _stopped_by(signal.SIGTERM, run, rng)


def sigint(run: Run, rng: random.Random) -> None:
    """Ctrl-C."""
    _stopped_by(signal.SIGINT, run, rng)


def _stopped_by(number: signal.Signals, run: Run, rng: random.Random) -> None:
    life = run.start()
    run.until_steps(life, rng.randint(1, 16))
    code = life.end(number)
    if code not in (128 + number, 0):  # 0: it had just finished
        raise Failure(f"exit code {code} after {number.name}: {life.text()[-300:]}")
    if code and "which is saved" not in life.text().splitlines()[-1]:
        raise Failure(f"nothing saved: {life.text()[-300:]}")


def full_disk_for_a_while(run: Run, rng: random.Random) -> None:
    """No room for seconds, a save among them: the run goes on, and saves again once there is room."""
    life = run.start()
    run.until_steps(life, rng.randint(1, 8))
    with full_disk(life.process.pid):
        time.sleep(rng.uniform(2.0, 6.0))
        if life.process.poll() is not None:
            raise Failure(f"a full disk ended it: {life.text()[-300:]}")
    before = run.newest()
    run.until(life, lambda: run.newest() != before)
    if life.end(signal.SIGTERM) not in (128 + signal.SIGTERM, 0):
        raise Failure(f"exit code {life.process.returncode} after a full disk: {life.text()[-300:]}")


def kill_on_full_disk(run: Run, rng: random.Random) -> None:
    """kill -9 while there is no room."""
    life = run.start()
    run.until_steps(life, rng.randint(1, 8))
    with full_disk(life.process.pid):
        time.sleep(rng.uniform(1.0, 4.0))
        killed(life)


def full_disk_from_the_start(run: Run, _: random.Random) -> None:
    """No room when it is started: one line, exit code 2."""
    life = run.start(before=["sh", "-c", 'ulimit -f 0; exec "$@"', "sh"])
    if (code := life.end()) != 2:
        raise Failure(f"exit code {code} on a full disk")


def read_only_for_a_while(run: Run, rng: random.Random) -> None:
    """The folder of checkpoints cannot be written: the run goes on."""
    life = run.start()
    run.until_steps(life, rng.randint(1, 4))
    with _read_only(run.checkpoints, life):
        time.sleep(rng.uniform(3.0, 8.0))
        if life.process.poll() is not None:
            raise Failure(f"a read-only folder ended it: {life.text()[-300:]}")
    if life.end(signal.SIGTERM) not in (128 + signal.SIGTERM, 0):
        raise Failure(f"exit code {life.process.returncode}: {life.text()[-300:]}")


@contextlib.contextmanager
def _read_only(folder: Path, life: Life) -> Iterator[None]:
    """By permissions; root needs the immutable flag, which not every disk has."""
    change, back = (["chattr", "+i"], ["chattr", "-i"]) if os.getuid() == 0 else (["chmod", "555"], ["chmod", "755"])
    try:
        subprocess.run([*change, folder], check=True, capture_output=True)
    except (OSError, subprocess.CalledProcessError):
        killed(life)
        raise NotHere("no folder can be made read-only for root on this disk") from None
    try:
        yield
    finally:
        subprocess.run([*back, folder], check=True)


def removed_data(run: Run, rng: random.Random) -> None:
    """A file of the data is gone: one line with its name, and once it is back the run goes on."""
    _with_bad_data(run, rng, lambda file: file.unlink())


def corrupted_data(run: Run, rng: random.Random) -> None:
    """A file of the data has another middle part."""
    _with_bad_data(run, rng, lambda file: _spoil(file, rng, 0.1, 0.9))


def _with_bad_data(run: Run, rng: random.Random, harm: Callable[[Path], None]) -> None:
    file = rng.choice(run.data_files)
    whole = file.with_name(f".{file.name}.whole")
    shutil.copy2(file, whole)
    if before := rng.random() < 0.5:
        harm(file)
    life = run.start()
    try:
        if not before:
            run.until_steps(life, rng.randint(1, 8))
            harm(file)
        deadline = time.monotonic() + 20  # until it draws the file, if it does: what is in the cache stays readable
        while life.process.poll() is None and time.monotonic() < deadline:
            time.sleep(0.05)
        if life.process.poll() is None:
            killed(life)
        elif life.end() not in (0, 2):
            raise Failure(f"exit code {life.process.returncode} with bad data: {life.text()[-300:]}")
    finally:
        life.process.kill()
        whole.replace(file)


def damaged_checkpoint(run: Run, rng: random.Random) -> None:
    """A file of the newest checkpoint is cut, emptied, removed, other JSON, or has one bit flipped."""
    life = run.start()
    run.until_steps(life, rng.randint(1, 4))
    killed(life)
    newest = run.newest()
    files = sorted(path for path in (newest.rglob("*") if newest else ()) if path.is_file())
    if len([path for path in run.checkpoints.glob("*") if path.name.isdecimal()]) < 2:
        return  # the one before would be the beginning
    file = rng.choice(files)
    how = rng.choice(["bit", "bit", "cut", "empty", "gone", "json"])
    if how == "bit":
        content = bytearray(file.read_bytes())
        if content:
            content[rng.randrange(len(content))] ^= 1 << rng.randrange(8)
        file.write_bytes(content)
    elif how == "cut":
        os.truncate(file, file.stat().st_size // 2)
    elif how == "gone":
        file.unlink()
    else:
        file.write_text("" if how == "empty" else json.dumps(rng.choice([{}, [], None, {"step": 1}])))


def _spoil(file: Path, rng: random.Random, first: float, last: float) -> None:
    size = file.stat().st_size
    with file.open("r+b") as stream:
        stream.seek(int(first * size))
        stream.write(rng.randbytes(int((last - first) * size)))


def clock_jumps(run: Run, rng: random.Random) -> None:
    """The wall clock jumps by up to a year, forwards and backwards, and so do the times of the run's files."""
    clock = run.folder / "clock"
    clock.write_text("0")
    here = str(Path(__file__).parent / "clock")
    life = run.start({"PYTHONPATH": here, "DRILL_CLOCK": str(clock)})
    for _ in range(3):
        run.until_steps(life, len(life.steps()) + rng.randint(1, 4))
        jump = rng.choice([-1, 1]) * rng.choice([3600, 86_400, 365 * 86_400])
        clock.write_text(str(jump))
        for file in (run.workdir / "run.lock", run.workdir / "metrics.jsonl"):
            with contextlib.suppress(OSError):
                os.utime(file, (time.time() + jump,) * 2)
    if life.process.poll() not in (None, 0):
        raise Failure(f"a clock that jumps ended it: {life.text()[-300:]}")
    killed(life)


def two_runs(run: Run, rng: random.Random) -> None:
    """A second run on the same folder: it is refused, and the first goes on."""
    life = run.start()
    run.until_steps(life, rng.randint(1, 8))
    second = run.start()
    code = second.end()
    if life.process.poll() is None and (code != 2 or "is in use by another run" not in second.text()):
        raise Failure(f"the second run ended with {code}: {second.text()[-300:]}")
    if life.process.poll() not in (None, 0):
        raise Failure(f"the first run ended, too: {life.text()[-300:]}")
    killed(life)


FAULTS: dict[str, tuple[Fault, int]] = {
    "kill -9 in start-up": (kill_in_start_up, 14),
    "kill -9 between saves": (kill_in_steps, 18),
    "kill -9 while a checkpoint is written": (kill_in_save, 18),
    "SIGTERM": (sigterm, 3),
    "SIGINT": (sigint, 3),
    "full disk for seconds": (full_disk_for_a_while, 3),
    "full disk, then kill -9": (kill_on_full_disk, 2),
    "full disk at the start": (full_disk_from_the_start, 2),
    "read-only folder for seconds": (read_only_for_a_while, 2),
    "data removed, put back": (removed_data, 3),
    "data corrupted, mended": (corrupted_data, 3),
    "newest checkpoint damaged": (damaged_checkpoint, 8),
    "clock jumps": (clock_jumps, 2),
    "two runs on one folder": (two_runs, 2),
}
"""Name -> what is done, and how many times in a whole drill."""
