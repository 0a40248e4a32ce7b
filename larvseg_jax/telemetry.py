"""What a run costs: time of a step, standing still for want of data, share of the devices' peak (MFU), memory."""

from __future__ import annotations

import collections
import concurrent.futures
import contextlib
import dataclasses
import re
import resource
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from types import TracebackType
from typing import Any, TypeVar

import jax
from jax.sharding import Mesh

from larvseg_jax.config import Experiment
from larvseg_jax.flops import step_flops, stream_sizes
from larvseg_jax.progress import UNKNOWN_DEVICE

T = TypeVar("T")

_STEPS_AHEAD = 2  # enough that the device always has a next step; more would fill its memory with batches
_GIB = 2**30


@dataclasses.dataclass(frozen=True)
class Window:
    """Consecutive steps: how many, their seconds, and those in which the devices stood still for want of data."""

    steps: int
    seconds: float
    starved: float


class Clock:
    """Times steps while the host runs ahead of the device: nothing here waits for the step just begun.

    with Clock(step) as clock:
        batch = clock.next(batches)
        clock.begun(train_step(batch))
        window = clock.read(step)  # after fetching the metrics of `step`, which is what ends a window

    A wait for a batch is a loss only from the moment when the device has finished what it had. So a thread of its
    own notes when each step ends. The host never is more than two steps ahead.
    """

    def __init__(self, step: int) -> None:
        self._step, self._since, self._starved = step, time.monotonic(), 0.0
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
            self._starved += time.monotonic() - asked
        elif self._running[-1].done():
            self._starved += time.monotonic() - max(asked, self._running[-1].result())
        return batch

    def begun(self, outputs: Any) -> None:
        """Tells that a step was dispatched which makes these arrays; waits for the one two steps before."""
        self._running.append(self._thread.submit(_finished, outputs))
        if len(self._running) > _STEPS_AHEAD:
            self._running.popleft().result()

    def read(self, step: int) -> Window:
        """The steps since the last reading, up to `step`."""
        now = time.monotonic()
        window = Window(step - self._step, now - self._since, self._starved)
        self._step, self._since, self._starved = step, now, 0.0
        return window

    @contextlib.contextmanager
    def paused(self) -> Iterator[None]:
        """Time spent inside (evaluation, checkpoints) does not count."""
        begin = time.monotonic()
        yield
        self._since += time.monotonic() - begin


def _finished(outputs: Any) -> float:
    jax.block_until_ready(outputs)
    return time.monotonic()


class Meter:
    """Turns windows of steps into what is logged.

    Attributes:
      flops: model FLOPs of a step, over all devices (flops.py).
      peak: FLOP/s that all devices together can do; None if unknown.
    """

    def __init__(self, run: Experiment, mesh: Mesh) -> None:
        self._pictures = sum(stream.batch_size for stream in run.streams.values())
        self._devices = mesh.local_devices
        self.flops = sum(step_flops(run.vit, stream_sizes(run)).values())
        peak = peak_flops(self._devices[0].device_kind, run.vit.dtype)
        self.peak = None if peak is None else peak * mesh.size

    def values(self, window: Window) -> dict[str, float]:
        """What the log gets of a window.

        images_per_second, seconds_per_step; data_wait: share of the time without data; mfu: left out where the peak
        is unknown; device_memory_gib or, where a device does not tell, host_memory_gib: the most so far.
        """
        seconds = window.seconds / window.steps
        return {
            "images_per_second": self._pictures / seconds,
            "seconds_per_step": seconds,
            "data_wait": window.starved / window.seconds,
            **({} if self.peak is None else {"mfu": self.flops / seconds / self.peak}),
            **peak_memory([device.memory_stats() for device in self._devices]),
        }

    def __str__(self) -> str:
        peak = UNKNOWN_DEVICE if self.peak is None else f"{self.peak / 1e12:,.1f} TFLOP/s"
        return f"{self.flops:.3g} FLOP per step; peak of the devices: {peak}"


_PEAKS = {  # device_kind: TFLOP/s of one device for dtype bfloat16, float32
    r"NVIDIA H200": (989.4, 494.7),
    r"NVIDIA H100 80GB HBM3": (989.4, 494.7),
    r"NVIDIA H100 PCIe": (756.0, 378.0),
    r"NVIDIA A100.*GB.*": (312.0, 156.0),
    r"Tesla V100-SXM2-\d+GB": (None, 15.7),
    r"TPU v6 lite|TPU v6e": (918.0, 918.0),
    r"TPU v5|TPU v5p": (459.0, 459.0),
    r"TPU v5 lite|TPU v5e": (197.0, 197.0),
    r"TPU v4": (275.0, 275.0),
}
"""Dense peaks from the makers' data sheets. For float32 what JAX multiplies with by default: TF32 on NVIDIA since the
A100, one pass of bfloat16 on TPUs; the class head's products, in full float32, are held against the same."""


def peak_flops(device_kind: str, dtype: str) -> float | None:
    """Peak FLOP/s of one device for a compute dtype ("bfloat16", "float32"); None for a device that is not listed."""
    for pattern, (bfloat16, float32) in _PEAKS.items():
        if re.fullmatch(pattern, device_kind) and " MIG " not in device_kind:  # a slice of a GPU has part of its peak
            peak = bfloat16 if dtype == "bfloat16" else float32
            return None if peak is None else peak * 1e12
    return None


def peak_memory(stats: Sequence[Mapping[str, int] | None]) -> dict[str, float]:
    """{"device_memory_gib": the most that the fullest device has held}, from the `memory_stats()` of all devices.

    Where a device (such as a CPU) does not tell, {"host_memory_gib": the most that this process has held}.
    """
    peaks = [device.get("peak_bytes_in_use") for device in stats if device]
    known = [peak for peak in peaks if peak is not None]
    if len(known) == len(stats):
        return {"device_memory_gib": max(known) / _GIB}
    unit = 1 if sys.platform == "darwin" else 1024
    return {"host_memory_gib": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit / _GIB}
