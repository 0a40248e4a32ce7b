"""Reads the text of a compiled program: which chips exchange how many bytes."""

from __future__ import annotations

import dataclasses
import math
import re
from collections.abc import Iterator, Mapping, Sequence

import numpy as np

KINDS = ("all-reduce", "all-gather", "reduce-scatter", "all-to-all", "collective-permute")

_INSTRUCTION = re.compile(
    r"^\s+(?:ROOT )?%?[\w.\-]+ = (?P<shape>.*?) (?P<kind>" + "|".join(KINDS) + r")(?P<start>-start)?\((?P<rest>.*)$"
)
_COMPUTATION = re.compile(r"^(?:ENTRY )?%?([\w.\-]+) \(.*\{\s*$")
_ARRAY = re.compile(r"\b(pred|[a-z]+\d+(?:e\d+m\d+\w*)?)\[([\d,]*)\]")
_LOOP_PARTS = re.compile(r"\b(?:body|condition)=%?([\w.\-]+)")
_CALLED = re.compile(r"\b(?:calls|body|condition|to_apply)=%?([\w.\-]+)|branch_computations=\{([^}]*)\}")


@dataclasses.dataclass(frozen=True)
class Collective:
    """One exchange among chips.

    Attributes:
      kind: one of KINDS.
      size: bytes of its result on one chip.
      group: how many chips exchange among themselves.
      axes: the mesh axes along which these chips lie.
      in_loop: whether it stands in a loop, whose turns are not known here: it counts once.
    """

    kind: str
    size: int
    group: int
    axes: tuple[str, ...]
    in_loop: bool = False

    @property
    def sent(self) -> float:
        """Bytes a chip sends, in a ring of the group (the least that is possible)."""
        others = (self.group - 1) / self.group
        times = {
            "all-reduce": 2 * others,
            "all-gather": others,
            "reduce-scatter": self.group - 1,
            "all-to-all": others,
            "collective-permute": 1,
        }[self.kind]
        return float(times * self.size)


def read_collectives(program: str, mesh: Mapping[str, int]) -> tuple[Collective, ...]:
    """All exchanges of a compiled program (`compiled.as_text()`) over a mesh of axes {name: devices}."""
    looped = _looped_computations(program)
    found = []
    for computation, line in lines_by_computation(program):
        match = _INSTRUCTION.match(line)
        if match is None:
            continue
        groups = _groups(match["rest"], math.prod(mesh.values()))
        group = 2 if match["kind"] == "collective-permute" else groups.shape[1]
        if group > 1:
            size = _size(match["shape"], match["kind"], bool(match["start"]))
            found.append(Collective(match["kind"], size, group, _axes(groups, mesh), computation in looped))
    return tuple(found)


def lines_by_computation(program: str) -> Iterator[tuple[str, str]]:
    """(name of the computation, line) of every line."""
    computation = ""
    for line in program.splitlines():
        header = _COMPUTATION.match(line)
        computation = header[1] if header else computation
        yield computation, line


def _looped_computations(program: str) -> set[str]:
    """Names of the computations that loops run, directly or not."""
    calls: dict[str, set[str]] = {}
    looped: set[str] = set()
    for computation, line in lines_by_computation(program):
        if "=%" not in line and "={" not in line and " while(" not in line:
            continue
        if " while(" in line:
            looped.update(_LOOP_PARTS.findall(line))
        for one, several in _CALLED.findall(line):
            names = [one] if one else [name.strip().lstrip("%") for name in several.split(",")]
            calls.setdefault(computation, set()).update(names)
    pending = list(looped)
    while pending:
        new = calls.get(pending.pop(), set()) - looped
        looped |= new
        pending += new
    return looped


def _size(shape: str, kind: str, starts: bool) -> int:
    """Bytes of a result. One that only starts lists its operands before it (and what it waits by after it)."""
    arrays = [_bytes(dtype, dims) for dtype, dims in _ARRAY.findall(shape)]
    if starts and kind == "collective-permute":
        return arrays[1]
    if starts and kind != "all-reduce":
        return sum(arrays[len(arrays) // 2 :])
    return sum(arrays)


def array_bytes(shape: str) -> int:
    """Bytes of an array or a tuple of arrays, as a program writes their shapes."""
    return sum(_bytes(dtype, dims) for dtype, dims in _ARRAY.findall(shape))


def _bytes(dtype: str, dims: str) -> int:
    bits = 8 if dtype == "pred" else int(re.sub(r"^[a-z]+(\d+).*$", r"\1", dtype))
    return math.prod(int(n) for n in dims.split(",") if n) * bits // 8


def _groups(attributes: str, devices: int) -> np.ndarray:
    """(groups, members) of the chips that exchange, by their place in the mesh. HLO has several notations for it."""
    if pairs := re.search(r"source_target_pairs=\{(\{[\d,{}]*\})\}", attributes):
        return _listed(pairs[1])
    if named := re.search(r"replica_groups=mesh\[([^\]]*)\](?:, device_ids=\((.*?)\))? *\{([^}]*)\}", attributes):
        return _of_axes(named[1], named[2], named[3])
    if listed := re.search(r"replica_groups=\{(\{[\d,{}]*\})\}", attributes):
        return _listed(listed[1])
    if tiled := re.search(r"replica_groups=(\[[\d,]+\])<=(\[[\d,]+\](?:T\([\d,]+\))?)", attributes):
        return _iota(tiled[2]).reshape(_numbers(tiled[1]))
    return np.arange(devices)[None]  # replica_groups={}: everyone


def _listed(text: str) -> np.ndarray:
    """{{0,2},{1,3}}; groups of one size, as those over mesh axes are."""
    return np.array([_numbers(group) for group in re.findall(r"\{([\d,]+)\}", text)])


def _iota(text: str) -> np.ndarray:
    """[2,4]T(1,0): the numbers 0, 1, ... in that shape, transposed, in a row."""
    dims, _, order = text.partition("T")
    shape = _numbers(dims)
    numbers = np.arange(math.prod(shape)).reshape(shape)
    return (numbers.transpose(_numbers(order)) if order else numbers).reshape(-1)


def _of_axes(dims: str, devices: str | None, axes: str) -> np.ndarray:
    """mesh['axis_0'=2,'axis_1'=4], device_ids=([2,4]T(1,0)) {'axis_1'}: groups along the axes in braces."""
    sizes = {name: int(size) for name, size in re.findall(r"'(\w+)'=(\d+)", dims)}
    parts = {name: (before, part) for name, before, part in re.findall(r"'(\w+)'(?::\((\d+)\)(\d+))?", axes)}
    split: list[int] = []
    chosen: list[int] = []
    for name, size in sizes.items():
        # 'axis_0':(2)4 is the part of 4 that follows the first 2 of the axis.
        before, part = (int(n) if n else 0 for n in parts.get(name, ("", "")))
        pieces = [before, part, size // (before * part)] if part else [size]
        if name in parts:
            chosen.append(len(split) + (1 if part else 0))
        split += pieces
    grid = _iota(devices) if devices else np.arange(math.prod(sizes.values()))
    return _along(grid.reshape(split), chosen)


def _along(grid: np.ndarray, chosen: Sequence[int]) -> np.ndarray:
    kept = [i for i in range(grid.ndim) if i not in chosen]
    members = math.prod(grid.shape[i] for i in chosen)
    return grid.transpose([*kept, *chosen]).reshape(-1, members)


def _axes(groups: np.ndarray, mesh: Mapping[str, int]) -> tuple[str, ...]:
    """The mesh axes along which the members of a group differ."""
    places = np.unravel_index(groups, tuple(mesh.values()))
    return tuple(name for name, place in zip(mesh, places, strict=True) if (place != place[:, :1]).any())


def _numbers(text: str) -> list[int]:
    return [int(number) for number in re.findall(r"\d+", text)]
