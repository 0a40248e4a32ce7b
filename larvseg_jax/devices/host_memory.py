"""The RAM of this machine and of this process; what a step has freed stays in the process, for the next one.

XLA asks for all buffers of a step on a CPU at once and frees them after it. glibc gives such blocks back to the system,
and every step faults its gigabytes in anew: a tenth of the processor time of ViT-B/16, more on a busy virtual machine
(docs/performance.md). Elsewhere than on glibc nothing is done.
"""

from __future__ import annotations

import ctypes
import os
from pathlib import Path

import jax

from larvseg_jax.devices.memory import program_memory

# Of malloc.h.
_M_TRIM_THRESHOLD, _M_MMAP_MAX, _M_ARENA_MAX = -1, -4, -8

_DEVICES = Path("/dev")
_ACCELERATORS = ("nvidia[0-9]*", "accel*", "vfio/[0-9]*")  # GPUs, TPUs; JAX, which knows better, has not started yet


def use_one_heap() -> None:
    """All threads take memory from the one heap that can keep it; best before JAX starts its threads.

    Nothing is done where there is an accelerator: its buffers are its own, and the host's many threads read pictures.
    """
    if not any(True for pattern in _ACCELERATORS for _ in _DEVICES.glob(pattern)):
        _set(_M_ARENA_MAX, 1)


def keep_freed_pages(compiled: jax.stages.Compiled) -> jax.stages.Compiled:
    """From here on freed memory stays in the process, if this machine has room for it; returns the step as it is.

    A heap may break up: room is needed for two sets of the step's buffers.
    """
    memory, devices = program_memory(compiled), jax.local_devices()
    on_host = devices[0].platform == "cpu"
    buffers = memory.temporary * len(devices) if memory is not None and on_host else 0
    if resident() + 2 * buffers < host_memory():
        _set(_M_MMAP_MAX, 0)  # no block outside the heap
        _set(_M_TRIM_THRESHOLD, -1)  # none given back from its end
    return compiled


def host_memory() -> int:
    """Bytes of RAM of this machine, or fewer if its container has a limit."""
    try:
        limit = Path("/sys/fs/cgroup/memory.max").read_text().strip()
    except OSError:
        limit = "max"
    physical = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    return min(physical, int(limit)) if limit.isdigit() else physical


def resident() -> int:
    """Bytes of RAM that this process has; 0 where the system does not say."""
    try:
        pages = int(Path("/proc/self/statm").read_text().split()[1])
    except OSError:
        return 0
    return pages * os.sysconf("SC_PAGE_SIZE")


def _set(parameter: int, value: int) -> None:
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None)
    if mallopt is not None:
        mallopt(parameter, value)
