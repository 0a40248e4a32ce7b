"""What a run costs: seconds of a step, share of the time without data, share of the devices' peak (MFU), memory."""

from __future__ import annotations

import collections
import concurrent.futures
import contextlib
import dataclasses
import resource
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from types import TracebackType
from typing import Any, TypeVar

import jax
from jax.sharding import Mesh

from larvseg_jax.console import GIB
from larvseg_jax.devices.peaks import peak_flops

T = TypeVar("T")

_STEPS_AHEAD = 2  # enough that the device always has a next step; more would fill its memory with batches


@dataclasses.dataclass(frozen=True)
class Lap:
    """Consecutive steps: how many, their seconds, and those in which the devices stood still for want of data."""

    steps: int
    seconds: float
    starved: float


class Clock:
    """Times steps while the host runs ahead of the device: nothing here waits for the step just begun.

    with Clock(step) as clock:
        batch = clock.next(batches)
        clock.begun(train_step(batch))
        lap = clock.read(step)  # up to the end of `step`

    A wait for a batch is a loss only from the moment when the device has finished what it had. So a thread of its
    own notes when each step ends. The host never is more than two steps ahead.
    """

    def __init__(self, step: int) -> None:
        self._step, self._since = step, time.monotonic()
        # Seconds by the step that they are before: a wait or a pause may be noted before an earlier lap is read.
        self._starved, self._paused = (collections.defaultdict[int, float](float) for _ in range(2))
        self._begun, self._ends = step, dict[int, concurrent.futures.Future[float]]()
        self._running: collections.deque[concurrent.futures.Future[float]] = collections.deque()
        self._thread = concurrent.futures.ThreadPoolExecutor(1, "clock")

    def __enter__(self) -> Clock:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._thread.shutdown()

    def next(self, batches: Iterator[T]) -> T:
        """The next batch, and notes how long the devices stood still meanwhile."""
        asked = time.monotonic()
        batch = next(batches)
        if not self._running:
            self._starved[self._begun + 1] += time.monotonic() - asked
        elif self._running[-1].done():
            self._starved[self._begun + 1] += time.monotonic() - max(asked, self._running[-1].result())
        return batch

    def begun(self, outputs: Any) -> None:
        """A step was dispatched that makes these arrays; waits for the one two steps before."""
        end = self._thread.submit(_finished, outputs)
        self._begun += 1
        self._running.append(end)
        self._ends[self._begun] = end
        if len(self._running) > _STEPS_AHEAD:
            self._running.popleft().result()

    def read(self, step: int) -> Lap:
        """The steps since the last reading, up to the end of `step`, which is waited for."""
        now = self._ends[step].result()
        self._ends = {later: end for later, end in self._ends.items() if later > step}
        starved, paused = (_taken(seconds, step) for seconds in (self._starved, self._paused))
        lap = Lap(step - self._step, now - self._since - paused, starved)
        self._step, self._since = step, now
        return lap

    @contextlib.contextmanager
    def paused(self) -> Iterator[None]:
        """Time spent inside (evaluation, checkpoints) does not count."""
        begin = time.monotonic()
        yield
        self._paused[self._begun + 1] += time.monotonic() - begin


def _taken(seconds: dict[int, float], step: int) -> float:
    """The sum of what is noted up to a step, which is noted no more."""
    return sum((seconds.pop(noted) for noted in sorted(seconds) if noted <= step), 0.0)


def _finished(outputs: Any) -> float:
    jax.block_until_ready(outputs)
    return time.monotonic()


class Meter:
    """Turns laps into what is logged.

    Attributes:
      flops: model FLOPs of a step, over all devices.
      peak: FLOP/s that all devices together can do; None if unknown.
    """

    def __init__(self, pictures: int, flops: int, dtype: str, mesh: Mesh) -> None:
        """Takes pictures and model FLOPs of a step (0: unknown) and the dtype that the backbone computes in."""
        self._pictures, self.flops = pictures, flops
        self._devices = mesh.local_devices
        peak = peak_flops(self._devices[0].device_kind, dtype) if flops else None
        self.peak = None if peak is None else peak * mesh.size

    def values(self, lap: Lap) -> dict[str, float]:
        """What the log gets of a lap.

        images_per_second, seconds_per_step; data_wait: share of the time without data; mfu: left out where the peak
        is unknown; device_memory_gib or, where a device does not tell, host_memory_gib: the most so far.
        """
        seconds = lap.seconds / lap.steps
        return {
            "images_per_second": self._pictures / seconds,
            "seconds_per_step": seconds,
            "data_wait": lap.starved / lap.seconds,
            **({} if self.peak is None else {"mfu": self.flops / seconds / self.peak}),
            **peak_memory([device.memory_stats() for device in self._devices]),
        }

    def __str__(self) -> str:
        peak = "unknown" if self.peak is None else f"{self.peak / 1e12:,.1f} TFLOP/s"
        return f"{self.flops:.3g} FLOP per step; peak of the devices: {peak}"


def peak_memory(stats: Sequence[Mapping[str, int] | None]) -> dict[str, float]:
    """{"device_memory_gib": the most that the fullest device has held}, from the `memory_stats()` of all devices.

    Where a device (such as a CPU) does not tell, {"host_memory_gib": the most that this process has held}.
    """
    peaks = [device.get("peak_bytes_in_use") for device in stats if device]
    known = [peak for peak in peaks if peak is not None]
    if len(known) == len(stats):
        return {"device_memory_gib": max(known) / GIB}
    unit = 1 if sys.platform == "darwin" else 1024
    return {"host_memory_gib": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit / GIB}
