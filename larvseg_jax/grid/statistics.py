"""Means over seeds, and what they are worth."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import NamedTuple

import numpy as np


class Estimate(NamedTuple):
    """A mean with its standard error, and of how many values; the error of one value is NaN."""

    mean: float
    error: float
    seeds: int


def estimate(values: Sequence[float]) -> Estimate | None:
    """Mean and s / sqrt(n), s with n - 1 degrees of freedom; None of nothing, NaN if a value is undefined."""
    n = len(values)
    if not n:
        return None
    error = float(np.std(values, ddof=1) / np.sqrt(n)) if n > 1 else float("nan")
    return Estimate(float(np.mean(values)), error, n)


def paired_difference(values: Mapping[int, float], reference: Mapping[int, float]) -> Estimate | None:
    """The mean of value - reference over the seeds that both have; what a seed does to both falls out of its error."""
    return estimate([values[seed] - reference[seed] for seed in values if seed in reference])
