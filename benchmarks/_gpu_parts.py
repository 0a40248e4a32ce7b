"""What `make benchmarks-gpu` measures: each part takes an interpreter with PyTorch, or "", and returns rows."""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Callable
from typing import Any, Literal

Rows = list[dict[str, Any]]

BATCHES = (4, 8, 16, 32, 64)
"""Pictures of each of the two streams of configs/c171_i21k.py, which has 8."""


def training(dtype: Literal["float32", "bfloat16"], torch_python: str) -> Rows:
    """The step of configs/c171_i21k.py at its true size by batch, up to the first that does not fit."""
    from benchmarks._step_speed import by_batch
    from benchmarks.full_vocabulary import experiment

    return by_batch(lambda size: experiment(size, size, dtype), BATCHES, steps=15)


def prediction(torch_python: str) -> Rows:
    """Segmenting a photo, over the network alone."""
    from benchmarks.predict import measure, summary

    cells = [("512x512", 20), ("512x512", 21_841), ("1024x768", 21_841), ("4000x3000", 20), ("4000x3000", 21_841)]
    names = {"first": "first s", "whole": "later s", "alone": "network s", "ratio": "over it", "peak": "peak GiB"}
    return [
        {"photo": size, "classes": classes} | {names[key]: value for key, value in summary(found).items()}
        for (size, classes), found in measure(cells, rounds=2).items()
    ]


def search(torch_python: str) -> Rows:
    """The best 5 of 21,841 classes at every pixel, from features."""
    from benchmarks.predict_21k import measure, parser, summary

    given = parser().parse_args(["--rounds=2", *([f"--torch_python={torch_python}"] if torch_python else [])])
    found = {(picture, variant): runs for picture, variant, runs in measure(given)}  # the last has all rounds
    return [{"picture": picture, "variant": variant, **summary(runs)} for (picture, variant), runs in found.items()]


def classes(torch_python: str) -> Rows:
    """The image-level losses as classes are added."""
    from benchmarks.class_scaling import measure_all

    names = {"temporary": "temporary GB", "seconds": "best s"}
    rows = (dataclasses.asdict(m) for m in measure_all(10, 40.0))
    return [{names.get(key, key): value for key, value in row.items() if key != "growth"} for row in rows]


def attention(torch_python: str) -> Rows:
    """A layer of ViT-B/16 on 16 pictures of 320 and on 8 of 512 pixels, forward and backward, bfloat16."""
    from benchmarks.attention import layers

    return layers([(16, 400, 12, 64), (8, 1_025, 12, 64)], "bfloat16", calls=10, repeats=20)


def precision(torch_python: str) -> Rows:
    """The class head's products."""
    from benchmarks.precision import PRODUCTS, measure

    return measure(PRODUCTS, repeats=20)


def pytorch(dtype: Literal["float32", "bfloat16"], torch_python: str) -> Rows:
    """A training step and its heads beside PyTorch's."""
    from benchmarks.vs_pytorch import Summary, comparisons, measure

    rows = []
    with comparisons(dtype, 96, torch_python, repeats=3) as made:
        for comparison in made:
            found = {name: Summary.of(results) for name, results in measure(*comparison).items()}
            ours = next(iter(found.values()))
            for name, own in found.items():
                row = {"ms": 1e3 * own.median, "best ms": 1e3 * own.best, "peak GB": own.peak / 1e9}
                rows.append({"what": comparison.title, "by": name, **row, "over ours": own.median / ours.median})
    return rows


PARTS: dict[str, Callable[[str], Rows]] = {
    "attention": attention,
    "precision": precision,
    "training_bfloat16": functools.partial(training, "bfloat16"),
    "training_float32": functools.partial(training, "float32"),
    "prediction": prediction,
    "search": search,
    "classes": classes,
    "pytorch_bfloat16": functools.partial(pytorch, "bfloat16"),
    "pytorch_float32": functools.partial(pytorch, "float32"),
}
NEED_PYTORCH = frozenset({"pytorch_bfloat16", "pytorch_float32"})
