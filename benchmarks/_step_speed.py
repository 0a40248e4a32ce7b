"""How fast the compiled step of a run is on this device: random pictures that lie there already, no input pipeline."""

from __future__ import annotations

import dataclasses
import statistics
import time
from collections.abc import Callable, Sequence
from typing import Any

import jax
import jax.numpy as jnp

from benchmarks.full_vocabulary import filled
from data_pipelines.rows import extent_of
from larvseg_jax import assemble
from larvseg_jax.config import Experiment
from larvseg_jax.devices.memory import program_memory
from larvseg_jax.devices.mesh import make_mesh
from larvseg_jax.devices.peaks import peak_flops

WARM_UP = 3  # steps


def random_batch(run: Experiment, mesh: jax.sharding.Mesh) -> dict[str, dict[str, jax.Array]]:
    """A step's batches: random pixels, labels in squares of 32, one tag a picture."""
    batch: dict[str, dict[str, jax.Array]] = {}
    for name, arrays in assemble.abstract_batch(run, mesh).items():
        classes = len(run.catalogue.label_set(run.streams[name]))
        made: dict[str, jax.Array] = {}
        for key, (array, like) in zip(jax.random.split(jax.random.key(0), len(arrays)), arrays.items(), strict=True):
            if array == "image":
                made[array] = jax.random.randint(key, like.shape, 0, 256, jnp.int32).astype(like.dtype)
            elif array == extent_of("image"):
                made[array] = jnp.full(like.shape, arrays["image"].shape[1], like.dtype)
            elif array == "label":
                coarse = jax.random.randint(key, (like.shape[0], *(-(-n // 32) for n in like.shape[1:])), 0, classes)
                made[array] = coarse.repeat(32, 1).repeat(32, 2)[:, : like.shape[1], : like.shape[2]].astype(like.dtype)
            elif array == "tags":
                first = jax.random.randint(key, like.shape[:1], 0, classes)
                made[array] = jnp.full(like.shape, -1, like.dtype).at[:, 0].set(first.astype(like.dtype))
            else:
                made[array] = jnp.ones(like.shape, like.dtype)
        batch[name] = {array: jax.device_put(x, arrays[array].sharding) for array, x in made.items()}
    return batch


def step_speed(run: Experiment, steps: int) -> dict[str, Any]:
    """Milliseconds of a step (median and best of `steps`), pictures/s, MFU (None: peak unknown), temporary memory.

    The memory bank is full. Each step is waited for, as no training does: what is measured is the device.
    """
    mesh = make_mesh(1, 1, jax.devices()[:1])
    method = assemble.make_method(run, mesh)
    state = assemble.fresh_state(run, mesh, method)
    state = dataclasses.replace(state, memory=filled(state.memory))
    begin = time.perf_counter()
    compiled = assemble.lower_step(run, mesh, state, method).compile()
    compilation = time.perf_counter() - begin
    memory = program_memory(compiled)
    train_step, batch = assemble.seeded(run, mesh, compiled), random_batch(run, mesh)
    seconds, metrics = [], {}
    for _ in range(WARM_UP + steps):
        begin = time.perf_counter()
        state, metrics = jax.block_until_ready(train_step(state, batch))
        seconds.append(time.perf_counter() - begin)
    middle = statistics.median(seconds[WARM_UP:])
    flops = sum(method.flops().values())
    peak = peak_flops(mesh.devices.flat[0].device_kind, run.vit.dtype)
    return {
        "ms": 1e3 * middle,
        "best ms": 1e3 * min(seconds[WARM_UP:]),
        "pictures/s": sum(stream.batch_size for stream in run.streams.values()) / middle,
        "MFU": flops / middle / peak if peak else None,
        "TFLOP": flops / 1e12,
        "temporary GB": memory.temporary / 1e9 if memory else None,
        "compilation s": compilation,
        "loss": float(metrics["loss"]),
    }


def by_batch(make: Callable[[int], Experiment], sizes: Sequence[int], steps: int) -> list[dict[str, Any]]:
    """A row for each batch size, in order, up to the first that the device has no memory for, which has a row, too."""
    rows = []
    for size in sizes:
        try:
            rows.append({"of each stream": size, **step_speed(make(size), steps)})
        except jax.errors.JaxRuntimeError as error:
            if "RESOURCE_EXHAUSTED" not in str(error):
                raise
            rows.append({"of each stream": size, "failed": "out of memory"})
            break
    best = max((row for row in rows if "ms" in row), key=lambda row: row["pictures/s"], default=None)
    return [row | ({"best": "yes"} if row is best else {}) for row in rows]
