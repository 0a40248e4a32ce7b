"""What a row of a batch consists of: arrays, and pictures whose pixels are written right into the batch."""

from __future__ import annotations

from typing import Any, NamedTuple, Protocol, runtime_checkable

import numpy as np
from jaxtyping import Float32


class ArraySpec(NamedTuple):
    """One array of a row: shape and dtype, and the value that fills rows which are no example."""

    shape: tuple[int, ...]
    dtype: str
    fill: int


@runtime_checkable
class Written(Protocol):
    """One or several pictures of a row: float32 pixels that do not exist before the batch does."""

    @property
    def shape(self) -> tuple[int, ...]:
        """Of its pixels."""
        ...

    def write(self, pixels: Float32[np.ndarray, "..."]) -> None:
        """Writes all of them."""
        ...


def stacked(values: list[Any]) -> np.ndarray:
    """One array of all rows; tuples, which may be of any length, as objects."""
    if isinstance(values[0], tuple):
        return np.fromiter(values, object, len(values))
    if not isinstance(values[0], Written) or isinstance(values[0], np.ndarray):
        return np.stack(values)
    pixels = np.empty((len(values), *values[0].shape), np.float32)
    for value, place in zip(values, pixels, strict=True):
        value.write(place)
    return pixels
