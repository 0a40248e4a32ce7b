"""Sine and cosine position of a map (Carion et al. 2020, DETR; Mask2Former's attention adds it to queries and keys)."""

from __future__ import annotations

import functools
import math

import numpy as np
from jaxtyping import Float32

_TEMPERATURE = 10_000.0
_EPSILON = 1e-6


@functools.cache
def sine_position(
    height: int, width: int, features_per_axis: int
) -> Float32[np.ndarray, "{height} {width} {2*features_per_axis}"]:
    """Where each element of a map stands: first the features of its row, then those of its column.

    An axis of n elements is numbered 1 .. n, scaled to 2 pi at its end, and divided by 10000^(2 floor(i/2) / features)
    for feature i: the sine where i is even, the cosine where it is odd.
    """
    feature = np.arange(features_per_axis)
    frequency = _TEMPERATURE ** (-2 * (feature // 2) / features_per_axis)

    def of_axis(n: int) -> np.ndarray:
        angle = np.arange(1, n + 1)[:, None] * (2 * math.pi / (n + _EPSILON)) * frequency
        return np.where(feature % 2, np.cos(angle), np.sin(angle))

    rows, columns = of_axis(height), of_axis(width)
    position = np.zeros((height, width, 2 * features_per_axis), np.float32)
    position[..., :features_per_axis] = rows[:, None]
    position[..., features_per_axis:] = columns
    position.setflags(write=False)  # the cache hands the same array to everybody
    return position
