"""The scalars of a run for TensorBoard, by tensorboardX, which needs no TensorFlow."""

from __future__ import annotations

import contextlib
import os
import socket
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from tensorboardX import summary
from tensorboardX.proto.event_pb2 import Event, SessionLog
from tensorboardX.record_writer import RecordWriter

_AGAIN_AFTER = 60.0  # seconds without a try once the disk has refused


class Board:
    """Writes scalars here and now; what a full disk does not take is missing there.

    tensorboardX's own SummaryWriter writes in a thread: it ends when the disk is full, and whoever writes after that
    waits for it for ever.
    """

    def __init__(self, folder: Path, first_step: int) -> None:
        """`first_step`: TensorBoard is told to hide what earlier runs have written of it and later ones."""
        self._folder, self._opened, self._refused_until = folder, 0, 0.0
        self._writer: RecordWriter | None = None
        self._write(step=first_step, file_version="brain.Event:2")
        self._write(step=first_step, session_log=SessionLog(status=SessionLog.START))

    def write(self, step: int, values: Mapping[str, float]) -> None:
        """Adds the scalars of a step."""
        for name, value in values.items():
            self._write(step=step, summary=summary.scalar(name, value))
        self._tried(lambda writer: writer.flush())

    def close(self) -> None:
        """Writes out what is buffered."""
        self._tried(lambda writer: writer.close())

    def _write(self, **event: Any) -> None:
        event_bytes = Event(wall_time=time.time(), **event).SerializeToString()
        self._tried(lambda writer: writer.write(event_bytes))

    def _tried(self, do: Callable[[RecordWriter], object]) -> None:
        """Does it if the disk lets. Once it has refused there is a new file: the old one may end in half an event."""
        if time.monotonic() < self._refused_until:
            return
        try:
            if self._writer is None:
                self._folder.mkdir(parents=True, exist_ok=True)
                self._opened += 1
                name = f"events.out.tfevents.{int(time.time())}.{socket.gethostname()}.{os.getpid()}.{self._opened}"
                self._writer = RecordWriter(str(self._folder / name))
            do(self._writer)
        except OSError:
            self._refused_until = time.monotonic() + _AGAIN_AFTER
            if self._writer is not None:
                with contextlib.suppress(OSError):
                    self._writer.close()
            self._writer = None
