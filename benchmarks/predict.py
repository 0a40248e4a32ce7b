"""Time and memory of segmenting one photo, against its size and the number of classes.

    python -m benchmarks.predict

A ViT-S/16 of random weights with so many random classes, photos of smooth noise, resized to a short side of 512 and cut
into windows of 512: what `Predictor` does by default, the best 5 classes of every pixel of the photo. Each cell of the
table is a process of its own, in turn, --rounds times. The baseline is the network alone on the same windows, in that
process and whatever the number of classes: "times the network" is the whole over it. First: the first call, compilation
included (its programs are not kept on disk). Peak: of the process during the first call, above the weights and the
libraries; on a GPU that of the device, weights included. Later calls and the network alone take turns.
"""

from __future__ import annotations

import argparse
import json
import statistics
import subprocess
import sys
import time
from collections.abc import Iterable
from pathlib import Path

import cv2
import numpy as np
from rich.table import Table

from benchmarks._memory import forget_peak, peak_resident, resident
from benchmarks._turns import seconds_in_turn
from larvseg_jax.console import console

SETTINGS = {
    "model": dict(width=384, depth=12, num_heads=6, mlp_dim=1536, patch_size=16, image_size=512),
    "method": {"name": "larvseg"},
}
SIZES = ("512x512", "1024x768", "4000x3000")
CLASSES = (20, 150, 1_000, 21_841)
REPEATS = 5


def photo(width: int, height: int) -> np.ndarray:
    """Smooth noise, uint8 RGB."""
    coarse = np.random.default_rng(0).integers(0, 256, (12, 16, 3), dtype=np.uint8)
    return cv2.resize(coarse, (width, height), interpolation=cv2.INTER_CUBIC)


def one(size: str, classes: int) -> dict[str, float | str]:
    """Measures one cell, in this process."""
    import jax

    from larvseg_jax.config import network_sections
    from larvseg_jax.devices.mesh import make_mesh
    from larvseg_jax.methods.method import Task, as_linear
    from larvseg_jax.predict.predictor import Predictor
    from larvseg_jax.trained import Trained
    from larvseg_jax.vocabulary import Vocabulary

    config, vit = network_sections(SETTINGS)
    method = config.make(Task(classes, vit, {}, make_mesh(1, 1, jax.devices()[:1])))
    params, _ = jax.jit(method.init)(jax.random.key(0))
    words = Vocabulary(tuple(f"class {number}" for number in range(classes)))
    trained = Trained(method, params, None, words, SETTINGS, Path("random"), -1, {})
    predictor, image = Predictor(trained), photo(*map(int, size.split("x")))
    jax.block_until_ready(params)
    held = resident()
    forget_peak()
    begin = time.perf_counter()
    predictor(image)
    first, peak = time.perf_counter() - begin, peak_resident() - held
    statistics_of = jax.devices()[0].memory_stats() or {}
    scorer = as_linear(method.scorer(words.label_set()), words.label_set())
    embed = jax.jit(scorer.embed)

    def network() -> None:
        for window in predictor.windows.cut(image, vit.patch_size):
            np.asarray(embed(params, None, window[None]))

    found = seconds_in_turn({"whole": lambda: predictor(image), "alone": network}, REPEATS)
    whole, alone = (statistics.median(found[name]) for name in ("whole", "alone"))
    device = jax.devices()[0].device_kind
    peak = statistics_of.get("peak_bytes_in_use", peak)
    return dict(first=first, whole=whole, alone=alone, peak=peak / 2**30, device=device, version=jax.__version__)


def measure(cells: Iterable[tuple[str, int]], rounds: int) -> dict[tuple[str, int], list[dict]]:
    """What `one` says of each (size, classes), `rounds` times in turn, each time in a fresh process."""
    runs: dict[tuple[str, int], list[dict]] = {cell: [] for cell in cells}
    for _ in range(rounds):
        for size, classes in runs:
            command = [sys.executable, "-m", "benchmarks.predict", "--one", f"--sizes={size}", f"--classes={classes}"]
            printed = subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True).stdout
            runs[size, classes].append(json.loads(printed.splitlines()[-1]))
    return runs


def summary(found: list[dict]) -> dict[str, float]:
    """Of the rounds of one cell: median seconds, the median of the ratios, the largest peak."""
    medians = {key: statistics.median(run[key] for run in found) for key in ("first", "whole", "alone")}
    ratio = statistics.median(run["whole"] / run["alone"] for run in found)
    return medians | dict(ratio=ratio, peak=max(run["peak"] for run in found))


def main() -> None:
    """Prints the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--sizes", default=",".join(SIZES), help="of photos, width x height")
    parser.add_argument("--classes", default=",".join(map(str, CLASSES)), help="how many compete")
    parser.add_argument("--rounds", type=int, default=2)
    parser.add_argument("--one", action="store_true", help=argparse.SUPPRESS)
    given = parser.parse_args()
    cells = [(size, int(classes)) for size in given.sizes.split(",") for classes in given.classes.split(",")]
    if given.one:
        print(json.dumps(one(*cells[0])))
        return
    runs = measure(cells, given.rounds)
    seen = runs[cells[0]][0]
    table = Table("photo", "classes", "first s", "later s", "network alone s", "times the network", "peak GiB")
    table.title = f"{seen['device']}, jax {seen['version']}"
    for (size, classes), found in runs.items():
        means = summary(found)
        figures = (f"{means['first']:.1f}", *(f"{means[key]:.2f}" for key in ("whole", "alone", "ratio", "peak")))
        table.add_row(size, f"{classes:,}", *figures)
    console.print(table)


if __name__ == "__main__":
    main()
