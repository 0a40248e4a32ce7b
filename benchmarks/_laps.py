"""Processor time by named stage; needs nothing but the standard library."""

from __future__ import annotations

import collections
import time


class Laps:
    """Processor seconds of this process: each call books what passed since the last one under a name."""

    def __init__(self) -> None:
        self.seconds: dict[str, float] = collections.defaultdict(float)
        self._last = time.process_time()

    def start(self) -> None:
        """What passed so far belongs to no stage."""
        self._last = time.process_time()

    def __call__(self, name: str) -> None:
        now = time.process_time()
        self.seconds[name] += now - self._last
        self._last = now
