"""Which array lies where: one mesh with axes `data` (pictures) and `model` (classes)."""

from __future__ import annotations

import collections
import dataclasses
import math
import re
from collections.abc import Callable, Sequence
from typing import Any, TypeVar

import jax
import numpy as np
from jax import lax
from jax.sharding import Mesh, NamedSharding, PartitionSpec
from jaxtyping import Array, Int, PyTree
from rich.filesize import decimal
from rich.table import Table

from larvseg_jax.errors import UserError

T = TypeVar("T")

BY_PICTURE, BY_CLASS, WHOLE = PartitionSpec("data"), PartitionSpec("model"), PartitionSpec()

_BACKBONE = re.compile("(^|/)backbone/")


@dataclasses.dataclass(frozen=True)
class ShardingRules:
    """How the arrays of a train state are split at rest.

    Attributes:
      rules: (pattern, mesh axis or None of each array axis); the first pattern found in an array's path counts
        ("params/head/class_embeddings", "opt_state/0/trace/head/class_embeddings", "bank/slots").
      shard_backbone: arrays of the backbone and their optimiser state that no rule names are split over all
        devices, along their largest axis that can be. Others that no rule names are whole on every device.
    """

    rules: tuple[tuple[str, tuple[str | None, ...]], ...]
    shard_backbone: bool

    def __post_init__(self) -> None:
        for pattern, axes in self.rules:
            try:
                re.compile(pattern)
            except re.error as error:
                raise UserError(f"mesh.rules has {pattern!r}, no regular expression ({error}): correct it") from None
            unknown = [axis for axis in axes if axis not in ("data", "model", None)]
            if unknown:
                raise UserError(f"mesh.rules has axis {unknown[0]!r} for {pattern!r}: use 'data', 'model' or None")

    def spec(self, path: str, shape: tuple[int, ...], mesh: Mesh) -> PartitionSpec:
        """The split of one array; UserError where a rule names an axis that cannot be split so."""
        for pattern, axes in self.rules:
            if re.search(pattern, path) and shape:
                _check_divides(pattern, axes, path, shape, mesh)
                return PartitionSpec(*axes)
        return _largest_axis(shape, mesh) if self.shard_backbone and _BACKBONE.search(path) else WHOLE


def _check_divides(pattern: str, axes: tuple[str | None, ...], path: str, shape: tuple[int, ...], mesh: Mesh) -> None:
    fits = len(axes) <= len(shape)
    if not fits or any(axis and size % mesh.shape[axis] for axis, size in zip(axes, shape, strict=False)):
        raise UserError(
            f"mesh.rules: {pattern!r} splits {path} {list(shape)} by {axes}, which mesh {dict(mesh.shape)} "
            "does not divide: change the rule or the mesh"
        )


def _largest_axis(shape: tuple[int, ...], mesh: Mesh) -> PartitionSpec:
    """The largest axis that the most devices divide: data x model, else one of the two, else nothing."""
    data, model = mesh.shape["data"], mesh.shape["model"]
    single = [("data",), ("model",)] if data >= model else [("model",), ("data",)]
    for axes in (("data", "model"), *single):
        parts = data * model if len(axes) == 2 else mesh.shape[axes[0]]
        fits = [i for i, size in enumerate(shape) if size % parts == 0]
        if fits and parts > 1:
            largest = max(fits, key=lambda i: shape[i])
            return PartitionSpec(*[None] * largest, axes)
    return WHOLE


def make_mesh(data: int, model: int, over: Sequence[jax.Device] | None = None) -> Mesh:
    """A mesh over all devices (or those given); -1 for `data` takes what `model` leaves.

    UserError if it does not use all of them, or if `model` reaches from one process to another: the
    pictures of a process are dealt to its own devices, of which each process must have the same number.
    """
    found = list(over or jax.devices())
    counts = collections.Counter(device.process_index for device in found)
    devices, processes, own = len(found), len(counts), min(counts.values())
    if own != max(counts.values()):
        told = ", ".join(str(counts[process]) for process in sorted(counts))
        raise UserError(f"the {processes} processes have {told} devices: give each of them {own}")
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


def state_shardings(state: Any, mesh: Mesh, rules: ShardingRules) -> Any:
    """The sharding of every leaf of a (possibly abstract) train state."""

    def place(path: tuple, leaf: Any) -> NamedSharding:
        return NamedSharding(mesh, rules.spec(path_name(path), leaf.shape, mesh))

    return jax.tree_util.tree_map_with_path(place, state)


def path_name(path: tuple) -> str:
    """The path of a leaf as rules see it: "params/head/gamma"."""
    return jax.tree_util.keystr(path, simple=True, separator="/")


def array_table(layout: PyTree, count: int = 12) -> Table:
    """The `count` largest arrays of a state (`train_state.state_layout`): where they live and what they take."""
    leaves = jax.tree_util.tree_leaves_with_path(layout)
    sizes = {path_name(path): (_bytes(x.shape, x), _bytes(x.sharding.shard_shape(x.shape), x), x) for path, x in leaves}
    table = Table(box=None, title="largest arrays of the state", title_justify="left")
    for column in ("array", "shape", "dtype", "bytes", "per device", "split"):
        table.add_column(column, overflow="fold")
    for name, (whole, own, x) in sorted(sizes.items(), key=lambda item: -item[1][0])[:count]:
        spec = ", ".join("x".join((axis,) if isinstance(axis, str) else axis or "-") for axis in x.sharding.spec)
        table.add_row(name, str(list(x.shape)), str(x.dtype), decimal(whole), decimal(own), spec or "whole")
    total, on_each = (sum(size[i] for size in sizes.values()) for i in (0, 1))
    table.add_row(f"all {len(sizes)} arrays", "", "", decimal(total), decimal(on_each), "", style="bold")
    return table


def _bytes(shape: tuple[int, ...], array: Any) -> int:
    return math.prod(shape) * array.dtype.itemsize


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


# What follows is for code inside a compiled step. It acts where the step is traced under `jax.set_mesh(mesh)`;
# elsewhere (tests, one picture at a time) arrays are left as they are and a function is called once, for all classes.


def split(x: Array, *axes: str | None) -> Array:
    """`x` with its axes split over the mesh axes named; None: not split."""
    if jax.sharding.get_abstract_mesh().empty:
        return x
    return lax.with_sharding_constraint(x, PartitionSpec(*axes))


def sum_over_class_shards(function: Callable[[Any, Any], T], pictures: PyTree, classes: PyTree) -> T:
    """function(pictures, classes), a sum over classes, made by every device for its own pictures and classes.

    Only the sums travel. First axes: pictures of `pictures` and of the result, classes of `classes`.
    No gradient goes through.
    """
    if jax.sharding.get_abstract_mesh().empty:
        return function(pictures, classes)

    def own(pictures: PyTree, classes: PyTree) -> T:
        return lax.psum(function(pictures, classes), "model")

    return jax.shard_map(own, in_specs=(BY_PICTURE, BY_CLASS), out_specs=BY_PICTURE, check_vma=False)(pictures, classes)


def on_class_shards(function: Callable[[T, Int[Array, ""], Any], T], by_class: T, everywhere: PyTree) -> T:
    """function(by_class, first, everywhere), made by every device for its own classes; `first` is the first one's row.

    `everywhere` goes whole to every device; the result is split by class as `by_class` is. No gradient goes through.
    """
    if jax.sharding.get_abstract_mesh().empty:
        return function(by_class, jax.numpy.zeros((), "int32"), everywhere)

    def own(by_class: T, everywhere: PyTree) -> T:
        classes = jax.tree.leaves(by_class)[0].shape[0]
        return function(by_class, lax.axis_index("model") * classes, everywhere)

    return jax.shard_map(own, in_specs=(BY_CLASS, WHOLE), out_specs=BY_CLASS, check_vma=False)(by_class, everywhere)
