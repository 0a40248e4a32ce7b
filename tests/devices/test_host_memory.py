"""Freed memory stays in the process, where there is room for it."""

import ctypes
import subprocess
import sys
import types
from pathlib import Path
from unittest import mock

import jax
import pytest

from larvseg_jax import cli
from larvseg_jax.commands import train
from larvseg_jax.devices import host_memory as module
from larvseg_jax.devices.memory import ProgramMemory

GLIBC = hasattr(ctypes.CDLL(None), "mallopt")

PROGRAM = jax.jit(lambda x: x + 1).lower(1.0).compile()

# In turn in several threads, each of which would have a heap of its own; 100 MB are more than those can hold.
FAULTS = """
import ctypes, resource, sys, threading
import jax
from larvseg_jax.devices import host_memory

libc = ctypes.CDLL(None)
libc.malloc.restype, libc.malloc.argtypes, libc.free.argtypes = ctypes.c_void_p, [ctypes.c_size_t], [ctypes.c_void_p]
if sys.argv[1] == "kept":
    host_memory.use_one_heap()
    host_memory.keep_freed_pages(jax.jit(lambda x: x + 1).lower(1.0).compile())
there, turn, faults = threading.Barrier(6), threading.Lock(), []

def buffers():
    libc.free(libc.malloc(1000))
    there.wait()
    with turn:
        for _ in range(2):
            before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
            block = libc.malloc(100_000_000)
            ctypes.memset(block, 1, 100_000_000)
            libc.free(block)
            faults.append(resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before)
    there.wait()

threads = [threading.Thread(target=buffers) for _ in range(6)]
for thread in threads:
    thread.start()
for thread in threads:
    thread.join()
print(*faults)
"""


@pytest.mark.skipif(not GLIBC, reason="this C library has no mallopt")
@pytest.mark.parametrize("how", ["given back", "kept"])
def test_later_buffers_find_the_pages_of_the_first(how):
    root = Path(__file__).parents[2]
    run = subprocess.run(
        [sys.executable, "-c", FAULTS, how], cwd=root, check=True, stdout=subprocess.PIPE, text=True,
        env={"PATH": "", "JAX_PLATFORMS": "cpu"},
    )  # fmt: skip
    first, *later = map(int, run.stdout.split())
    assert len(later) == 11
    if how == "kept":
        assert max(later) < 0.01 * first
    else:
        assert min(later) > 0.9 * first


@pytest.mark.parametrize(("temporary", "free", "kept"), [(0, 100, True), (4_000, 8_001, True), (4_000, 8_000, False)])
def test_kept_where_two_sets_of_buffers_fit(monkeypatch, temporary, free, kept):
    program, options = PROGRAM, []
    monkeypatch.setattr(module, "program_memory", lambda compiled: ProgramMemory(0, 0, 0, temporary, 0))
    monkeypatch.setattr(module, "resident", lambda: 1_000)
    monkeypatch.setattr(module, "host_memory", lambda: 1_000 + free)
    monkeypatch.setattr(module, "_set", lambda *option: options.append(option))
    monkeypatch.setattr(jax, "local_devices", lambda: [types.SimpleNamespace(platform="cpu")])
    assert module.keep_freed_pages(program) is program
    assert options == ([(-4, 0), (-1, -1)] if kept else [])  # mallopt(3): M_MMAP_MAX, M_TRIM_THRESHOLD


def test_every_device_of_a_cpu_has_its_buffers_and_a_gpu_has_its_own_memory(monkeypatch):
    monkeypatch.setattr(module, "program_memory", lambda compiled: ProgramMemory(0, 0, 0, 1_000, 0))
    monkeypatch.setattr(module, "resident", lambda: 0)
    monkeypatch.setattr(module, "host_memory", lambda: 2_001)
    options = []
    monkeypatch.setattr(module, "_set", lambda *option: options.append(option))
    for platform, devices in (("cpu", 2), ("gpu", 2)):
        monkeypatch.setattr(jax, "local_devices", lambda: [types.SimpleNamespace(platform=platform)] * devices)  # noqa: B023
        module.keep_freed_pages(PROGRAM)
        assert bool(options) == (platform == "gpu")


def test_memory_of_a_container_with_a_limit(monkeypatch):
    own = module.host_memory()
    assert 2**28 < own < 2**50
    for limit, expected in (("max\n", own), ("1000000\n", 1_000_000), (f"{2**60}\n", own)):
        monkeypatch.setattr(Path, "read_text", lambda self, limit=limit: limit)
        assert module.host_memory() == expected


def test_resident_is_that_of_the_process():
    status = Path("/proc/self/status").read_text()
    there = 1024 * int(next(line for line in status.splitlines() if line.startswith("VmRSS")).split()[1])
    assert module.resident() == pytest.approx(there, rel=0.05)


@pytest.mark.parametrize(("device", "heaps"), [("null", [(-8, 1)]), ("nvidia0", []), ("accel0", []), ("vfio/0", [])])
def test_hosts_of_accelerators_keep_a_heap_for_each_thread(monkeypatch, tmp_path, device, heaps):
    (tmp_path / device).parent.mkdir(exist_ok=True)
    (tmp_path / device).touch()
    options = []
    monkeypatch.setattr(module, "_DEVICES", tmp_path)
    monkeypatch.setattr(module, "_set", lambda *option: options.append(option))
    module.use_one_heap()
    assert options == heaps


def test_training_asks_for_one_heap_before_it_reads_its_config(monkeypatch):
    order = []
    monkeypatch.setattr(module, "use_one_heap", lambda: order.append("heap"))
    monkeypatch.setattr("larvseg_jax.config.from_config", lambda config: order.append("config"))
    monkeypatch.setattr("larvseg_jax.show.show", lambda run: order.append("show"))
    train.main(mock.create_autospec(cli.Given, instance=True, accept=[], config=None, show=True))
    assert order == ["heap", "config", "show"]
