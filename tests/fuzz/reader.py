"""What the fuzzer knows of one reader of files."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Sequence
from pathlib import Path
from random import Random
from typing import Any

from tests.fuzz import mutations


@dataclasses.dataclass(frozen=True)
class Reader:
    """One reader.

    Attributes:
      name: for the table, and in the names of saved inputs.
      seeds: valid inputs.
      mutate: makes another input of one.
      read: reads an input in a folder of its own; UserError where it is refused.
      share: how many of every 100 inputs it gets.
    """

    name: str
    seeds: Sequence[bytes]
    mutate: mutations.Mutation
    read: Callable[[bytes, Path], Any]
    share: float

    def input(self, seed: int, number: int) -> bytes:
        """Input number `number` of a run with that seed; number 0, 1, ... of as many as there are seeds are valid."""
        if number < len(self.seeds):
            return self.seeds[number]
        rng = Random(f"{seed}/{self.name}/{number}")
        if rng.random() < 0.05:
            return mutations.spliced(rng, self.seeds)
        return self.mutate(rng, rng.choice(self.seeds))
