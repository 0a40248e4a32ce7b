"""The mesh of a run: axis `data` for pictures, axis `model` for classes; and what has to be divided by it."""

from __future__ import annotations

import collections
import math
from collections.abc import Sequence

import jax
import numpy as np
from jax.sharding import Mesh, NamedSharding, PartitionSpec

from larvseg_jax.errors import UserError

BY_PICTURE, BY_CLASS, WHOLE = PartitionSpec("data"), PartitionSpec("model"), PartitionSpec()

ROWS_MULTIPLE = 16
"""Class rows are filled up to a multiple of this, so that a checkpoint fits meshes with other model axes."""


def make_mesh(data: int, model: int, over: Sequence[jax.Device] | None = None) -> Mesh:
    """A mesh over all devices (or those given); -1 for `data` takes what `model` leaves.

    UserError if it does not use all of them, or if `model` reaches from one process to another: the
    pictures of a process are dealt to its own devices, of which each process must have the same number.
    """
    found = list(over or jax.devices())
    counts = collections.Counter(device.process_index for device in found)
    devices, processes, own = len(found), len(counts), min(counts.values())
    if own != max(counts.values()):
        numbers = ", ".join(str(counts[process]) for process in sorted(counts))
        raise UserError(f"the {processes} processes have {numbers} devices: give each of them {own}")
    if data == -1 and model > 0 and devices % model == 0:
        data = devices // model
    if min(data, model) < 1 or data * model != devices:
        fits = [(devices // m, m) for m in range(1, own + 1) if own % m == 0]
        raise UserError(
            f"mesh.data={data} x mesh.model={model} does not make {devices} devices: "
            f"(data, model) can be {', '.join(map(str, fits))}"
        )
    axis_types = (jax.sharding.AxisType.Auto,) * 2
    if processes == 1:
        return jax.make_mesh((data, model), ("data", "model"), devices=over, axis_types=axis_types)
    if own % model:
        raise UserError(f"mesh.model={model} reaches over several processes of {own} devices: use a divisor of {own}")
    # jax.make_mesh may lay a row across processes even where each could have rows of its own.
    grid = np.empty(devices, object)
    grid[:] = sorted(found, key=lambda device: (device.process_index, device.id))
    return Mesh(grid.reshape(data, model), ("data", "model"), axis_types=axis_types)


def batch_sharding(mesh: Mesh) -> NamedSharding:
    """Pictures and labels split by picture over `data`."""
    return NamedSharding(mesh, BY_PICTURE)


def padded_batch_size(stream: str, batch_size: int, mesh: Mesh, padding: str) -> int:
    """The batch size on the devices: as asked, or filled up to what the mesh divides."""
    parts = mesh.shape["data"]
    if batch_size % parts == 0:
        return batch_size
    lower, upper = batch_size // parts * parts, -(-batch_size // parts) * parts
    if padding == "pad":
        return upper
    sizes = f"{lower} or {upper}" if lower else f"{upper}"
    raise UserError(
        f"streams.{stream}.batch_size={batch_size} cannot be split over {parts} devices: "
        f"use {sizes}, or batch_padding='pad'"
    )


def padded_rows(classes: int, mesh: Mesh) -> int:
    """Rows of tables with a row per class: filled up to what the mesh's `model` axis divides."""
    return classes + -classes % math.lcm(ROWS_MULTIPLE, mesh.shape["model"])
