"""What a grid is: tables, whose rows are configs with some options changed, each trained with several seeds.

A grid lies in a Python file with a function `get_grid()`, as a config does with `get_config()`.
"""

from __future__ import annotations

import collections
import dataclasses
import re
import runpy
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from larvseg_jax.errors import UserError


@dataclasses.dataclass(frozen=True)
class Row:
    """One line of a table.

    Attributes:
      name: what the table calls it.
      config: config file, with its arguments behind a colon, as --config takes it.
      options: dotted names of the config's options -> their values in this row.
    """

    name: str
    config: str
    options: Mapping[str, Any] = dataclasses.field(default_factory=dict)


@dataclasses.dataclass(frozen=True)
class Table:
    """Rows that are to be compared.

    Attributes:
      name: for --only and for the file of its plot: letters, digits, _ and -.
      title: its heading.
      rows: in their order; a row that stands in several tables is trained once.
      reference: name of the row that the others are compared with, seed by seed.
      scores: columns, by their names in metrics.jsonl, of the first evaluation by name.
    """

    name: str
    title: str
    rows: tuple[Row, ...]
    reference: str
    scores: tuple[str, ...] = ("mIoU", "mIoU_base", "mIoU_novel")

    def __post_init__(self) -> None:
        if not re.fullmatch(r"[\w-]+", self.name):
            raise UserError(f"the table {self.name!r} has no name for a file: use letters, digits, _ and -")
        names = [row.name for row in self.rows]
        _check_different(names, f"table {self.name}: row")
        if self.reference not in names:
            raise UserError(f"table {self.name}: its reference {self.reference!r} is no row: use one of {names}")
        if not self.scores:
            raise UserError(f"table {self.name} shows no scores: give it some, such as mIoU")


@dataclasses.dataclass(frozen=True)
class Grid:
    """Tables, and the seeds that each of their rows is trained with."""

    tables: tuple[Table, ...]
    seeds: tuple[int, ...] = (0, 1, 2, 3, 4)

    def __post_init__(self) -> None:
        if not self.tables or not self.seeds:
            raise UserError("the grid has no tables or no seeds: give it at least one of each")
        _check_different([table.name for table in self.tables], "table")
        _check_different(list(self.seeds), "seed")

    def with_options(self, options: Mapping[str, Any]) -> Grid:
        """The same with options of the config set in all rows that do not set them themselves."""
        tables = tuple(
            dataclasses.replace(
                table,
                rows=tuple(dataclasses.replace(row, options={**options, **row.options}) for row in table.rows),
            )
            for table in self.tables
        )
        return dataclasses.replace(self, tables=tables)


def _check_different(names: list[Any], what: str) -> None:
    twice = [name for name, count in collections.Counter(names).items() if count > 1]
    if twice:
        raise UserError(f"{what} {twice[0]!r} is there twice: give each another")


def load_grid(text: str) -> Grid:
    """The grid of a file, "FILE.py" or "FILE.py:ARGUMENT"; the argument is given to its get_grid.

    UserError if there is none, or if it is not a grid.
    """
    name, colon, argument = text.partition(":")
    path = Path(name)
    if not path.is_file():
        there = ", ".join(map(str, sorted(p for p in path.parent.glob("*.py") if p.stem != "__init__")))
        raise UserError(f"there is no grid {name}: {f'there are {there}' if there else 'give a file with get_grid()'}")
    try:
        found = runpy.run_path(name)["get_grid"](*([argument] if colon else []))
    except UserError as error:
        raise UserError(f"{name}: {error}") from error
    except SyntaxError as error:
        raise UserError(f"{name}, line {error.lineno}, is not Python ({error.msg}): mend it") from error
    except KeyError as error:
        raise UserError(f"{name} has no {error}: a grid has a function get_grid(), see configs/grids/") from error
    except Exception as error:  # whatever the file does
        raise UserError(f"{name}: {type(error).__name__}: {error}") from error
    if not isinstance(found, Grid):
        raise UserError(f"{name}: its get_grid() returns a {type(found).__name__}: let it return a Grid")
    return found
