"""Bytes that arrays and compiled programs take, on one device and in all."""

from __future__ import annotations

import dataclasses
import math
import re
from collections.abc import Mapping
from typing import Any

import jax
from jaxtyping import PyTree
from rich.table import Table

from larvseg_jax.console import in_bytes
from larvseg_jax.devices.sharding import path_name


@dataclasses.dataclass(frozen=True)
class ProgramMemory:
    """What a compiled program needs on one device, as its compiler says.

    Attributes:
      arguments, output: bytes of what goes in and of what comes out.
      shared: bytes of the output that take the place of arguments.
      temporary: bytes in use during a call only.
      code: bytes of the program itself.
    """

    arguments: int
    output: int
    shared: int
    temporary: int
    code: int

    @property
    def new_output(self) -> int:
        """Bytes of the output that are not in the place of an argument."""
        return self.output - self.shared

    @property
    def total(self) -> int:
        """Bytes that have to fit."""
        return self.arguments + self.new_output + self.temporary + self.code


TABLE_FROM = 10**9
"""Bytes of a state from which on it is worth a look where they lie."""


def program_memory(compiled: jax.stages.Compiled) -> ProgramMemory | None:
    """The memory of a compiled program; None where the backend does not say."""
    analysis = compiled.memory_analysis()
    if analysis is None:
        return None
    return ProgramMemory(
        arguments=analysis.argument_size_in_bytes,
        output=analysis.output_size_in_bytes,
        shared=analysis.alias_size_in_bytes,
        temporary=analysis.temp_size_in_bytes,
        code=analysis.generated_code_size_in_bytes,
    )


@dataclasses.dataclass(frozen=True)
class ArrayBytes:
    """Bytes of arrays on one device, and in all, what several devices hold counted once."""

    on_one: int = 0
    in_all: int = 0

    def __add__(self, other: ArrayBytes) -> ArrayBytes:
        return ArrayBytes(self.on_one + other.on_one, self.in_all + other.in_all)


def array_bytes(x: Any) -> ArrayBytes:
    """Bytes of an array with a sharding, which may be abstract (jax.ShapeDtypeStruct)."""
    own, whole = (math.prod(shape) * x.dtype.itemsize for shape in (x.sharding.shard_shape(x.shape), x.shape))
    return ArrayBytes(own, whole)


def bytes_by_part(tree: PyTree, parts: Mapping[str, str]) -> dict[str, ArrayBytes]:
    """Bytes of a tree of arrays, part by part.

    Args:
      tree: arrays with shardings, such as a train state or its layout (`training.state.state_layout`).
      parts: regular expression of a path ("params/head/gamma") -> name of the part; the first one found in a path
        counts. Several may have one name.

    Raises:
      ValueError: an array belongs to no part.
    """
    sizes = dict.fromkeys(parts.values(), ArrayBytes())
    for path, x in jax.tree_util.tree_leaves_with_path(tree):
        name = path_name(path)
        part = next((part for pattern, part in parts.items() if re.search(pattern, name)), None)
        if part is None:
            raise ValueError(f"{name} belongs to none of the parts {', '.join(parts)}")
        sizes[part] += array_bytes(x)
    return sizes


def state_size(layout: PyTree) -> Table | str:
    """What a state takes: a line; from a gigabyte on a table of its largest arrays."""
    sizes = [array_bytes(x) for x in jax.tree.leaves(layout)]
    total = sum(sizes, ArrayBytes())
    if total.in_all >= TABLE_FROM:
        return array_table(layout)
    return f"  state: {len(sizes)} arrays, {in_bytes(total.in_all)}, {in_bytes(total.on_one)} on each device"


def array_table(layout: PyTree, count: int = 12) -> Table:
    """The `count` largest arrays of a state (`training.state.state_layout`): where they live and what they take."""
    leaves = {path_name(path): x for path, x in jax.tree_util.tree_leaves_with_path(layout)}
    sizes = {name: array_bytes(x) for name, x in leaves.items()}
    table = Table(box=None, title="largest arrays of the state", title_justify="left")
    for column in ("array", "shape", "dtype", "bytes", "per device", "split"):
        table.add_column(column, overflow="fold")
    for name, size in sorted(sizes.items(), key=lambda item: -item[1].in_all)[:count]:
        x = leaves[name]
        spec = ", ".join("x".join((axis,) if isinstance(axis, str) else axis or "-") for axis in x.sharding.spec)
        shown = in_bytes(size.in_all), in_bytes(size.on_one)
        table.add_row(name, str(list(x.shape)), str(x.dtype), *shown, spec or "whole")
    total = sum(sizes.values(), ArrayBytes())
    last = in_bytes(total.in_all), in_bytes(total.on_one)
    table.add_row(f"all {len(sizes)} arrays", "", "", *last, "", style="bold")
    return table
