"""One run to a folder: two on one would overwrite each other's logs and checkpoints.

The lock is a file in the run's folder that says whose it is. Its owner touches it every few seconds, so that one
left behind by a killed process is told from one in use, on any disk that several hosts share.
"""

from __future__ import annotations

import contextlib
import json
import os
import socket
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from larvseg_jax.console import console
from larvseg_jax.devices.processes import is_first_process
from larvseg_jax.errors import UserError

FILE_NAME = "run.lock"
TOUCHED_EVERY = 5.0  # seconds
STALE_AFTER = 60.0  # seconds without a touch, on another host; on this one the process is looked for


@contextlib.contextmanager
def locked(workdir: Path) -> Iterator[None]:
    """Holds the folder of a run; of several processes the first one does.

    A lock left behind by a process that is gone is taken over, which is said. UserError if a run uses the folder, or
    if it cannot be written.
    """
    if not is_first_process():
        yield
        return
    path, there = workdir / FILE_NAME, workdir.exists()
    try:
        workdir.mkdir(parents=True, exist_ok=True)
        mine = _take(path)
    except OSError as error:
        raise UserError(f"cannot write {workdir} ({error.strerror}): give another workdir") from error
    ended = threading.Event()
    keeper = threading.Thread(target=_keep, args=(path, ended), daemon=True)
    keeper.start()
    try:
        yield
    finally:
        ended.set()
        keeper.join()
        if _read(path) == mine:
            path.unlink(missing_ok=True)
        if not there:
            with contextlib.suppress(OSError):  # not empty: the run has begun
                workdir.rmdir()


def user_of(workdir: Path) -> str | None:
    """The run that uses a folder, "process 12 on host, since ..."; None if none does."""
    path = workdir / FILE_NAME
    found = _read(path)
    return None if found is None or not _alive(path, found) else _owner(found)


def _owner(found: dict[str, Any]) -> str:
    return f"process {found.get('pid', '?')} on {found.get('host', '?')}, since {found.get('since', '?')}"


def _alive(path: Path, found: dict[str, Any]) -> bool:
    """Whether the process of a lock is alive, or may be."""
    if found.get("host") == socket.gethostname():
        return _runs(found)
    return _silent_for(path) < STALE_AFTER


def _take(path: Path) -> dict[str, Any]:
    """Makes the lock, in one step that only one process can win; what it says."""
    mine = {"host": socket.gethostname(), "pid": os.getpid(), "since": time.strftime("%Y-%m-%d %H:%M:%S")}
    mine["process started"] = _started(os.getpid())
    while True:
        try:
            with path.open("x", encoding="utf-8") as file:
                json.dump(mine, file)
            return mine
        except FileExistsError:
            _clear_if_stale(path)
        except OSError:  # no room: one without an owner would keep the next run waiting
            path.unlink(missing_ok=True)
            raise


def _clear_if_stale(path: Path) -> None:
    """Removes a lock whose process is gone. UserError if it is alive, or may be."""
    found = _read(path)
    if found is None:
        return  # gone in this moment
    owner = _owner(found)
    if _alive(path, found):
        raise UserError(
            f"{path.parent} is in use by another run ({owner}): give this one another workdir, or wait until it ends"
        )
    # Moved away first: of two that find it stale only one succeeds, and the other finds the new lock.
    aside = path.with_name(f"{path.name}.{os.getpid()}")
    with contextlib.suppress(FileNotFoundError):
        path.rename(aside)
        if _read(aside) != found:  # not the one that was stale: its new owner gets it back
            aside.rename(path)
            return
        aside.unlink()
        console.print(f"  took over the lock of a run that is gone ({owner})")


def _silent_for(path: Path) -> float:
    """Seconds since the lock was touched, by the clock of the disk: those of two hosts may differ."""
    probe = path.with_name(f"{path.name}.probe.{os.getpid()}")
    try:
        probe.touch()
        return probe.stat().st_mtime - path.stat().st_mtime
    except FileNotFoundError:
        return 0.0
    finally:
        probe.unlink(missing_ok=True)


def _keep(path: Path, ended: threading.Event) -> None:
    while not ended.wait(TOUCHED_EVERY):
        with contextlib.suppress(OSError):  # a full or absent disk: the next touch may succeed
            os.utime(path)


def _read(path: Path) -> dict[str, Any] | None:
    """What a lock says, {} if it is not readable (its owner was killed while it wrote); None if there is none."""
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        return None
    except (OSError, ValueError):
        return {}
    return found if isinstance(found, dict) else {}


def _runs(found: dict[str, Any]) -> bool:
    """Whether the process that a lock of this host names is running."""
    if Path("/proc/self/stat").exists():
        started = _started(found.get("pid"))
        return started is not None and started == found.get("process started")
    try:
        os.kill(int(found["pid"]), 0)
    except (KeyError, TypeError, ValueError, OSError):
        return False
    return True


def _started(pid: Any) -> str | None:
    """When a process of this host started, in the kernel's ticks; None if there is none: numbers are used again."""
    try:
        return Path(f"/proc/{int(pid)}/stat").read_text().rpartition(")")[2].split()[19]
    except (OSError, TypeError, ValueError, IndexError):
        return None
