"""What a row of a batch consists of: arrays, and pictures whose pixels are written right into the batch.

Pictures stay 8-bit levels until they are on the devices, which normalise them (`models.pixels.normalised_pictures`): a
quarter of the bytes to write, to keep ahead and to transfer.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, NamedTuple, Protocol, runtime_checkable

import numpy as np
from jaxtyping import Shaped


class ArraySpec(NamedTuple):
    """One array of a row: shape and dtype, and the value that fills rows which are no example.

    Of pictures the last three axes are height, width and colours: uint8 levels, or float32 that is normalised already.
    """

    shape: tuple[int, ...]
    dtype: str
    fill: int
    picture: bool = False


@runtime_checkable
class Written(Protocol):
    """One or several pictures of a row, whose pixels do not exist before the batch does."""

    @property
    def shape(self) -> tuple[int, ...]:
        """Of its pixels."""
        ...

    @property
    def dtype(self) -> np.dtype:
        """Of its pixels."""
        ...

    def write(self, pixels: Shaped[np.ndarray, "..."]) -> None:
        """Writes all of them."""
        ...


def extent_of(picture: str) -> str:
    """The name of the array with the height and width, from the top left, that a photo fills of a picture.

    Beyond them a picture is 0 once it is normalised, whatever its levels. Pictures without this array are full.
    """
    return f"{picture}_extent"


def besides_pictures(specs: Mapping[str, ArraySpec]) -> dict[str, ArraySpec]:
    """The arrays of a row that are no pictures, nor about them."""
    of_pictures = {extent_of(name) for name, spec in specs.items() if spec.picture}
    return {name: spec for name, spec in specs.items() if not spec.picture and name not in of_pictures}


def stacked(values: list[Any]) -> np.ndarray:
    """One array of all rows; tuples, which may be of any length, as objects."""
    if isinstance(values[0], tuple):
        return np.fromiter(values, object, len(values))
    if not isinstance(values[0], Written) or isinstance(values[0], np.ndarray):
        return np.stack(values)
    pixels = np.empty((len(values), *values[0].shape), values[0].dtype)
    for value, place in zip(values, pixels, strict=True):
        value.write(place)
    return pixels
