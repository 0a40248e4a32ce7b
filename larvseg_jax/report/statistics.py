"""Means over seeds or draws, and what they are worth."""

from __future__ import annotations

import math
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


def percent(found: Estimate, sign: str = "") -> str:
    """In percent: "10.49 ± 0.13", with sign="+" "+10.49 ± 0.13"; the mean alone where there is no error, or a dash."""
    if math.isnan(found.mean):
        return "–"
    error = "" if math.isnan(found.error) else f" ± {100 * found.error:.2f}"
    return f"{100 * found.mean:{sign}.2f}{error}"
