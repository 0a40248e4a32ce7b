"""Definitions of which classes are base and which novel, besides the vocabulary's own."""

from __future__ import annotations

import dataclasses


@dataclasses.dataclass(frozen=True)
class BaseNovel:
    """A definition of which classes are base; all others of the evaluation are novel.

    Attributes:
      label: its name in logs and tables, such as "58/92".
      base: names of the base classes.
    """

    label: str
    base: frozenset[str]
