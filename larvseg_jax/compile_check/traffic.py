"""How many bytes a compiled program moves: for GPUs, whose compiler does not tell."""

from __future__ import annotations

import re
from collections.abc import Iterator

from larvseg_jax.compile_check.program import array_bytes, lines_by_computation

_INSTRUCTION = re.compile(
    r"^\s+(?:ROOT )?%?(?P<name>[\w.\-]+) = (?P<shape>\(.*?\)|\S+) (?P<kind>[\w\-]+)\((?P<rest>.*)$"
)
_RUN = re.compile(r"\b(?:body|to_apply)=%?([\w.\-]+)")
_MOVES_NOTHING = {"parameter", "constant", "tuple", "get-tuple-element", "bitcast", "while", "call", "conditional"}
_IN_PLACE = re.compile("scatter|dynamic-update-slice|dynamic_update_slice")


def memory_traffic(program: str) -> int:
    """Bytes that the instructions of a program read and write, each operand and result once, loops once.

    What is inside a fusion stays there. Of what is updated in place (a scatter into the memory bank) only the updates
    are counted.
    """
    instructions = dict(_instructions(program))
    pending = [name for name, is_entry in _computations(program) if is_entry]
    total, seen = 0, set(pending)
    while pending:
        moved, runs = _of_computation(instructions.get(pending.pop(), []))
        total += moved
        pending += [name for name in runs if name not in seen]
        seen.update(runs)
    return total


def _computations(program: str) -> Iterator[tuple[str, bool]]:
    """(name, whether it is where the program begins)."""
    for match in re.finditer(r"^(ENTRY )?%?([\w.\-]+) \(.*\{\s*$", program, re.MULTILINE):
        yield match[2], bool(match[1])


def _instructions(program: str) -> Iterator[tuple[str, list[re.Match[str]]]]:
    found: dict[str, list[re.Match[str]]] = {}
    for computation, line in lines_by_computation(program):
        if match := _INSTRUCTION.match(line):
            found.setdefault(computation, []).append(match)
    return iter(found.items())


def _of_computation(instructions: list[re.Match[str]]) -> tuple[int, list[str]]:
    """(bytes moved, computations that it runs as its own: bodies of loops, calls)."""
    sizes: dict[str, int] = {}
    total, runs = 0, []
    for instruction in instructions:
        name, kind, rest = instruction["name"], instruction["kind"], instruction["rest"]
        sizes[name] = size = array_bytes(instruction["shape"])
        if kind in ("while", "call"):
            runs += _RUN.findall(rest)
        if kind in _MOVES_NOTHING or kind.endswith("-done"):
            continue
        operands = [sizes.get(operand, 0) for operand in re.findall(r"%([\w.\-]+)", rest.split("), ")[0])]
        moved = size + sum(operands)
        if _IN_PLACE.search(name) and size in operands:
            moved -= 2 * size
        total += moved
    return total, runs
