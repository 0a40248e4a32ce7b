"""Rare classes more often: photos of a stream are repeated within an epoch by the rarest class that they show.

Repeat factor sampling (A. Gupta et al., *LVIS*, CVPR 2019, appendix B.2): with f(c) the share of photos
that show class c and t a threshold,

    r(c) = max(1, sqrt(t / f(c)))          r(photo) = max of r(c) over its classes

and photo i comes r(i) times in an epoch. `Paper:` the fraction of r is drawn anew every epoch; here it is settled once,
evenly over the photos, so that the order stays a function of seed and step.
"""

from __future__ import annotations

import os
from collections.abc import Iterable
from concurrent import futures
from typing import Protocol, SupportsIndex, runtime_checkable

import numpy as np
from jaxtyping import Float64, Int32, Int64

from data_pipelines.examples import Source
from larvseg_jax.console import track
from larvseg_jax.errors import DataError
from larvseg_jax.vocabulary import IGNORE_LABEL, LabelSet

_GOLDEN = 0.6180339887498949  # its multiples, without their whole parts, lie evenly between 0 and 1


@runtime_checkable
class Labelled(Protocol):
    """A source that knows what a photo shows without decoding it."""

    def columns(self, index: SupportsIndex, /) -> Int32[np.ndarray, " k"]:
        """The columns of a photo's classes, each once."""
        ...


def balanced_order(source: Source, label_set: LabelSet, rare_below: float, name: str) -> Int64[np.ndarray, " places"]:
    """The photos of an epoch, those of rare classes several times; `rare_below` is the threshold t, a share.

    Reads every photo once, unless the source is `Labelled`; `name` stands beside the progress bar. A photo that cannot
    be read counts as one without classes: who draws it says what is wrong.
    """
    shown = list(track(_columns_of_all(source), len(source), f"{name}: classes"))
    photos = np.zeros(len(label_set), np.int64)
    for columns in shown:
        photos[columns] += 1
    factors = repeat_factors(photos / len(source), rare_below)
    of_photos = np.array([factors[columns].max(initial=1.0) for columns in shown])
    return np.repeat(np.arange(len(source)), settled(of_photos))


def repeat_factors(shares: Float64[np.ndarray, " n"], rare_below: float) -> Float64[np.ndarray, " n"]:
    """r of classes that so large shares of the photos show; 1 of those that none does."""
    return np.maximum(1.0, np.sqrt(rare_below / np.where(shares > 0, shares, 1.0)))


def settled(factors: Float64[np.ndarray, " n"]) -> Int64[np.ndarray, " n"]:
    """Whole numbers with those means: rounded up for as many photos, spread evenly, as the fraction says."""
    whole = np.floor(factors)
    lots = np.arange(len(factors)) * _GOLDEN % 1.0
    return (whole + (lots < factors - whole)).astype(np.int64)


def _columns_of_all(source: Source) -> Iterable[Int32[np.ndarray, " k"]]:
    """The classes of each photo, in order, read by threads."""
    with futures.ThreadPoolExecutor(os.cpu_count() or 1) as pool:
        yield from pool.map(lambda index: _columns(source, index), range(len(source)))


def _columns(source: Source, index: int) -> Int32[np.ndarray, " k"]:
    try:
        if isinstance(source, Labelled):
            return source.columns(index)
        example = source[index]
    except DataError:
        return np.zeros(0, np.int32)
    found = np.unique(example["tags"] if "tags" in example else example["label"])
    return found[found != IGNORE_LABEL].astype(np.int32)
