"""Which array of a train state lies where on the mesh at rest."""

from __future__ import annotations

import dataclasses
import re
from typing import Any

import jax
from jax.sharding import Mesh, NamedSharding, PartitionSpec

from larvseg_jax.devices.mesh import WHOLE
from larvseg_jax.errors import UserError

Rules = tuple[tuple[str, tuple[str | None, ...]], ...]

_BACKBONE = re.compile("(^|/)backbone/")


@dataclasses.dataclass(frozen=True)
class ShardingRules:
    """How the arrays of a train state are split at rest.

    Attributes:
      rules: (pattern, mesh axis or None of each array axis); the first pattern found in an array's path counts
        ("params/head/class_embeddings", "opt_state/0/trace/head/class_embeddings", "memory/slots").
      shard_backbone: arrays of the backbone and their optimiser state that no rule names are split over all
        devices, along their largest axis that can be. Others that no rule names are whole on every device.
    """

    rules: Rules
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


@dataclasses.dataclass(frozen=True)
class MeshConfig:
    """The section `mesh`."""

    data: int = -1  # devices along axis `data`, which pictures are split over; -1: all that model leaves
    model: int = 1  # devices along axis `model`, which classes are split over; within one process
    # How arrays are split at rest: regular expression on the path -> mesh axis (or None) of each array axis. The first
    # that is found counts; an optimiser's array has the path of its parameter. No rule: whole everywhere.
    rules: Rules = ()
    shard_backbone: bool = False  # True: arrays of the ViT are split over all devices, each along its largest axis

    def __post_init__(self) -> None:
        _ = self.sharding

    @property
    def sharding(self) -> ShardingRules:
        """The rules, checked."""
        return ShardingRules(self.rules, self.shard_backbone)


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


def state_shardings(state: Any, mesh: Mesh, rules: ShardingRules) -> Any:
    """The sharding of every leaf of a (possibly abstract) train state."""

    def place(path: tuple, leaf: Any) -> NamedSharding:
        return NamedSharding(mesh, rules.spec(path_name(path), leaf.shape, mesh))

    return jax.tree_util.tree_map_with_path(place, state)


def path_name(path: tuple) -> str:
    """The path of a leaf as rules see it: "params/head/gamma"."""
    return jax.tree_util.keystr(path, simple=True, separator="/")
