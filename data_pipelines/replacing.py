"""Photos that cannot be used in the middle of a run: another photo of the stream takes the place of each."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from typing import Any, Literal, NamedTuple

import numpy as np

from larvseg_jax.errors import DataError, UserError

_ATTEMPTS = 32  # photos tried for one place: where half of all are broken, one place in 4 billion finds none


@dataclasses.dataclass(frozen=True)
class DataConfig:
    """The section `data`: what to do about photos that cannot be used. Evaluations always stop at the first."""

    # "stop" at the first one, all steps saved; or "replace" each by another photo of its stream, the same at every run.
    on_error: Literal["stop", "replace"] = "stop"
    # Share of a stream's photos, above 0, that may be found unusable; more stop the run. One photo always may.
    most_replaced: float = 0.01

    def __post_init__(self) -> None:
        if not 0 < self.most_replaced <= 1:
            raise UserError(f"data.most_replaced is {self.most_replaced}: use a share above 0, at most 1")


class Unusable(NamedTuple):
    """A photo that cannot be used: its number in the source, and one line with file and reason."""

    number: int
    what: str


def row_or_another(
    row: Callable[[int, np.random.Generator], dict[str, Any]], count: int, number: int, rng: np.random.Generator
) -> dict[str, Any]:
    """The row of a photo; if it cannot be used, of another one, which depends on the place in the stream alone.

    Args:
      row: from the number of a photo and random numbers to a row of a batch.
      count: of the stream's photos.
      number: of the photo whose turn it is.
      rng: the place's random numbers, a Philox; every photo that is tried gets the same.

    Returns:
      The row, and `unusable`: the photos that were tried before, a tuple of Unusable.

    Raises:
      UserError: no photo that was tried can be used.
    """
    first = rng.bit_generator.state
    tried: dict[int, str] = {}
    others = None
    while True:
        try:
            return row(number, rng) | {"unusable": tuple(Unusable(*photo) for photo in tried.items())}
        except DataError as error:
            tried[number] = error.what
            remedy = error.remedy
        rng.bit_generator.state = first
        if others is None:
            assert isinstance(rng.bit_generator, np.random.Philox)
            others = np.random.Generator(rng.bit_generator.jumped())  # numbers that no other place has
        if len(tried) == min(_ATTEMPTS, count):
            raise UserError(f"{tried[number]}: {remedy} (and no other of the {len(tried)} photos tried can be used)")
        while number in tried:
            number = int(others.integers(count))
