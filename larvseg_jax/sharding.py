"""Which array lies where: one mesh with axes `data` (pictures) and `model` (classes)."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import jax
from jax.sharding import Mesh, NamedSharding, PartitionSpec

from larvseg_jax.errors import UserError

SPLIT_BY_CLASS = ("class_embeddings", "slots", "cursor", "wraps", "class_mean")
"""Arrays whose first axis is the vocabulary: the embeddings, their momentum, the memory bank."""


def make_mesh(data: int, model: int, over: Sequence[jax.Device] | None = None) -> Mesh:
    """A mesh over all devices (or those given); -1 for `data` takes what `model` leaves."""
    devices = len(over or jax.devices())
    if data == -1 and model > 0 and devices % model == 0:
        data = devices // model
    if min(data, model) < 1 or data * model != devices:
        fits = [(devices // m, m) for m in range(1, devices + 1) if devices % m == 0]
        raise UserError(
            f"mesh.data={data} x mesh.model={model} does not make {devices} devices: "
            f"(data, model) can be {', '.join(map(str, fits))}"
        )
    return jax.make_mesh((data, model), ("data", "model"), devices=over, axis_types=(jax.sharding.AxisType.Auto,) * 2)


def state_shardings(state: Any, mesh: Mesh) -> Any:
    """The sharding of every leaf of a (possibly abstract) train state."""

    def place(path: tuple, leaf: Any) -> NamedSharding:
        name = getattr(path[-1], "key", getattr(path[-1], "name", None))
        by_class = name in SPLIT_BY_CLASS and len(leaf.shape) > 0
        return NamedSharding(mesh, PartitionSpec("model") if by_class else PartitionSpec())

    return jax.tree_util.tree_map_with_path(place, state)


def batch_sharding(mesh: Mesh) -> NamedSharding:
    """Pictures and labels split by picture over `data`."""
    return NamedSharding(mesh, PartitionSpec("data"))


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
