"""Tables of Markdown, for pages that people read as text."""

from __future__ import annotations

from collections.abc import Sequence

from larvseg_jax.console import printable


def markdown_table(lines: Sequence[Sequence[str]]) -> str:
    """A table whose first line is its head; names in it may have any character."""
    rule = ["---"] * len(lines[0])
    cells = [[printable(cell).replace("|", r"\|") for cell in line] for line in (lines[0], rule, *lines[1:])]
    return "\n".join(f"| {' | '.join(line)} |" for line in cells)
