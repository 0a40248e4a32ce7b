"""The committed table of ratios (benchmarks/ratios.json): read, compared with what was measured, shown in the docs."""

from __future__ import annotations

import dataclasses
import json
import math
from collections.abc import Collection, Mapping
from pathlib import Path
from typing import Any, Literal, NamedTuple

from larvseg_jax.disk import write_text
from larvseg_jax.errors import UserError

BEGIN, END = "<!-- ratios: python -m benchmarks.gate --doc -->", "<!-- /ratios -->"


@dataclasses.dataclass(frozen=True)
class Figure:
    """What ours takes over what a baseline takes in the same run: less is better.

    Attributes:
      part: which measurement it is of.
      value: the ratio.
      tolerance: a value over (1 + tolerance) times this one is worse, under 1 / (1 + tolerance) times it is better.
      baseline: what it is held against.
    """

    part: str
    value: float
    tolerance: float
    baseline: str


@dataclasses.dataclass(frozen=True)
class RatioTable:
    """Figures by name, and what they were measured with: processor, versions of packages, commit, day."""

    machine: str
    versions: Mapping[str, str]
    commit: str
    date: str
    figures: Mapping[str, Figure]


def write_table(path: Path, table: RatioTable) -> None:
    """Writes it as JSON; values with 4 digits."""
    write_text(path, json.dumps(rounded(dataclasses.asdict(table)), indent=1, ensure_ascii=False) + "\n")


def rounded(value: Any) -> Any:
    """The same JSON with 4 digits of every number that is not whole."""
    if isinstance(value, dict):
        return {key: rounded(inner) for key, inner in value.items()}
    if isinstance(value, list):
        return [rounded(inner) for inner in value]
    return float(f"{value:.4g}") if isinstance(value, float) else value


def read_table(path: Path) -> RatioTable:
    """Reads it. UserError if it is missing or damaged."""
    try:
        found = json.loads(path.read_text("utf-8"))
        figures = {name: Figure(**figure) for name, figure in found.pop("figures").items()}
        table = RatioTable(**found, figures=figures)
        if any(not 0 < f.value < math.inf or not 0 <= f.tolerance < math.inf for f in figures.values()):
            raise ValueError("a value or tolerance is no positive number")
    except FileNotFoundError as error:
        raise UserError(f"{path} is missing: python -m benchmarks.gate --update measures and writes it") from error
    except (OSError, ValueError, TypeError, KeyError, AttributeError) as error:
        raise UserError(f"{path} cannot be read ({error}): take the committed one, or --update") from error
    return table


class Verdict(NamedTuple):
    """What became of a figure, and the line that says so."""

    kind: Literal["worse", "better", "same", "new", "missing"]
    name: str
    line: str


def compare(found: Mapping[str, Figure], table: RatioTable, left_out: Collection[str] = ()) -> list[Verdict]:
    """A verdict on every figure of either, but those of parts that were left out on purpose. A NaN is worse."""
    verdicts = [_verdict(name, figure, table.figures.get(name)) for name, figure in found.items()]
    for name, committed in table.figures.items():
        if name not in found and committed.part not in left_out:
            line = f"missing: {name}: not measured ({committed.value:.4g} in the table)"
            verdicts.append(Verdict("missing", name, line))
    return verdicts


def _verdict(name: str, figure: Figure, committed: Figure | None) -> Verdict:
    value = figure.value
    if committed is None:
        return Verdict("new", name, f"new: {name}: {value:.4g} of {figure.baseline}, not in the table yet")
    factor, allowed = value / committed.value, 1 + committed.tolerance
    said = (
        f"{name}: {value:.4g} of {committed.baseline}, {committed.value:.4g} in the table, "
        f"{factor:.2f} times that; up to {allowed:.2f} is taken"
    )
    if 1 / allowed <= factor <= allowed:
        return Verdict("same", name, said)
    if factor < 1 / allowed:
        return Verdict("better", name, f"better: {said}")
    return Verdict("worse", name, f"WORSE: {said}")


def lower_of(first: Mapping[str, Figure], second: Mapping[str, Figure]) -> dict[str, Figure]:
    """Of two measurements the lower value of each figure: what else the machine does adds time, it takes none away."""
    both = {name: min(first[name], second[name], key=_value) for name in first.keys() & second.keys()}
    return {name: both.get(name, figure) for name, figure in {**first, **second}.items()}


def _value(figure: Figure) -> float:
    return math.inf if math.isnan(figure.value) else figure.value


def markdown(table: RatioTable) -> str:
    """The table of docs/performance.md."""
    packages = ", ".join(f"{name} {table.versions[name]}" for name in ("jax", "numpy") if name in table.versions)
    lines = [
        f"{table.machine}, {packages}, commit {table.commit}, {table.date}.",
        "",
        "| figure | ours over the baseline | tolerance | baseline |",
        "|---|---|---|---|",
    ]
    for name, figure in table.figures.items():
        lines.append(f"| {name} | {figure.value:.3g} | {figure.tolerance:.0%} | {figure.baseline} |")
    return "\n".join(lines)


def with_table(page: str, table: RatioTable) -> str:
    """A page with the table between its two markers; UserError if it does not have both, once and in order."""
    before, begin, rest = page.partition(BEGIN)
    _, end, after = rest.partition(END)
    if not begin or not end or BEGIN in after or END in before + after:
        raise UserError(f"the page must have {BEGIN} and, behind it, {END} once: put them where the table is to stand")
    return f"{before}{BEGIN}\n\n{markdown(table)}\n\n{END}{after}"
