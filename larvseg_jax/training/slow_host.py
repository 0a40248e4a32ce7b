"""Of several processes the one that the others wait for, because its data comes too late.

All devices take a step together, so the time of a step is everywhere that of the slowest process. Only its own wait
for data tells it from the others: their devices are busy, waiting for its part.
"""

from __future__ import annotations

import statistics
from collections.abc import Mapping
from pathlib import Path

from larvseg_jax.console import console, printable
from larvseg_jax.devices import processes
from larvseg_jax.training.history import note
from larvseg_jax.training.telemetry import Lap

_NOTICED = 0.05  # of the time of a step
_TIMES = 3.0  # as long as the others wait


class SlowHost:
    """Compares the processes' waits for data at every logged step; the first process says who stands out."""

    def __init__(self, workdir: Path) -> None:
        self._workdir, self._named = workdir, -1

    def values(self, step: int, lap: Lap) -> dict[str, float]:
        """What the log gets: longest_data_wait, its share of a step, and slowest_process; {} if none stands out.

        A process is named in the terminal and in history.jsonl when it is not the one that was named before.
        """
        seconds = lap.seconds / lap.steps
        processes.tell_data_wait(lap.starved / lap.steps)
        waits = processes.data_waits()
        slowest = slowest_process({process: wait for process, (_, wait) in waits.items()}, seconds)
        if slowest is None:
            return {}
        host, longest = waits[slowest]
        if slowest != self._named:
            self._named = slowest
            others = statistics.median(wait for process, (_, wait) in waits.items() if process != slowest)
            line = (
                f"process {slowest} ({printable(host)}) waits {longest:.2g} s a step for its data, "
                f"the others {others:.2g} s: all go at its pace"
            )
            console.print(f"  {line}")
            note(self._workdir, "slow host", step, [line])
        return {"longest_data_wait": longest / seconds, "slowest_process": slowest}


def slowest_process(waits: Mapping[int, float], step_seconds: float) -> int | None:
    """The process whose wait (seconds a step) stands out from those of the others; None if they are alike, or short."""
    if len(waits) < 2:
        return None
    slowest = max(waits, key=lambda process: waits[process])
    others = statistics.median(wait for process, wait in waits.items() if process != slowest)
    stands_out = waits[slowest] >= _NOTICED * step_seconds and waits[slowest] >= _TIMES * others
    return slowest if stands_out else None
