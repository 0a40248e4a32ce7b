"""How well the clusters of ViL-Seg follow the classes of masks, whatever names they get.

    python -m benchmarks.cluster_purity --run=runs/vilseg_scenes [--step=N] [--count=300] [--data_root=DIR]

Of the photos of the first evaluation. Purity is the share of a photo's labelled pixels that are of the class which most
pixels of their cluster are of; mean over photos, in percent. The more clusters a photo has, the higher it is by chance,
so the clusters in use are counted beside it, and compared are as many clusters of

  head      the run's own clustering head
  K-means   the run's patch features, in each photo
  colours   the mean colours of the patches, by K-means in each photo: no learning at all
  blocks    where a patch is: the photo cut into upright rectangles

A photo must fit into one window of the evaluation.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, cast

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Int
from rich.table import Table

from benchmarks._of_run import measure_run, opened
from larvseg_jax.console import console, track
from larvseg_jax.errors import UserError
from larvseg_jax.evaluation.windows import Windows
from larvseg_jax.methods.vilseg.kmeans import closeness, kmeans
from larvseg_jax.methods.vilseg.method import ViLSeg
from larvseg_jax.vocabulary import IGNORE_LABEL


def purity(clusters: Int[np.ndarray, "h w"], label: Int[np.ndarray, "h w"]) -> float:
    """The share of labelled pixels that are of their cluster's most frequent class; nan if none is labelled."""
    labelled = label != IGNORE_LABEL
    if not labelled.any():
        return float("nan")
    pairs = np.zeros((clusters.max() + 1, label.max() + 1), np.int64)
    np.add.at(pairs, (clusters[labelled], label[labelled]), 1)
    return float(pairs.max(1).sum() / labelled.sum())


def of_pixels(
    patches: Int[np.ndarray, "h w"], shape: tuple[int, int], test_size: tuple[int, int], patch: int
) -> Int[np.ndarray, "H W"]:
    """The cluster of each pixel of a photo: that of the patch of the resized photo in which its centre lies."""
    rows, columns = (
        ((np.arange(side) + 0.5) * resized / side // patch).astype(int)
        for side, resized in zip(shape, test_size, strict=True)
    )
    return patches[rows[:, None], columns[None]]


def blocks(grid: tuple[int, int], count: int) -> Int[np.ndarray, "h w"]:
    """A grid cut into about so many rectangles."""
    rows = max(1, round(count**0.5))
    columns = max(1, round(count / rows))
    row, column = np.arange(grid[0]) * rows // grid[0], np.arange(grid[1]) * columns // grid[1]
    return row[:, None] * columns + column[None]


def colours(windows: Float[Array, "n side side 3"], patch: int, count: int) -> Int[Array, "n h w"]:
    """K-means of the patches' mean colours in each window."""
    n, height, width, _ = windows.shape
    means = windows.reshape(n, height // patch, patch, width // patch, patch, 3).mean((2, 4))

    def of_window(points: Float[Array, "h w 3"]) -> Int[Array, "h w"]:
        return jnp.argmax(closeness(points, kmeans(jax.random.key(0), points.reshape(-1, 3), count)), -1)

    return jax.vmap(of_window)(means)


def measure(folder: Path, count: int, step: int | None = None, data_root: str | None = None) -> dict[str, float]:
    """Purity by the names above; prints the table."""
    trained, method, evaluation, _, source = opened(folder, step, data_root, ViLSeg, "ViL-Seg: only that has clusters")
    number, patch = method.config.cluster.num, method.task.backbone.patch_size
    options = dataclasses.replace(method.config, eval=dataclasses.replace(method.config.eval, clusters="kmeans"))
    by_kmeans = ViLSeg(options, method.task)
    ways: dict[str, Callable[[Any], Any]] = {
        "head": jax.jit(lambda x: method.clusters(trained.params, trained.memory or {}, x)),
        "K-means": jax.jit(lambda x: by_kmeans.clusters(trained.params, trained.memory or {}, x)),
        "colours": jax.jit(lambda x: colours(x, patch, number)),
        "blocks": lambda x: blocks((x.shape[1] // patch, x.shape[2] // patch), number)[None],
    }
    found: dict[str, list[tuple[float, int]]] = {name: [] for name in ways}
    windows = evaluation.windows
    for i in track(range(min(count, len(source))), min(count, len(source)), "photos"):
        example = source[i]
        image, label = example["image"], cast(np.ndarray, example.get("label"))
        cut = jnp.asarray(one_window(windows, image))
        for name, way in ways.items():
            pixels = of_pixels(np.asarray(way(cut))[0], label.shape, windows.test_size(image.shape), patch)
            found[name].append((purity(pixels, label), len(np.unique(pixels))))
    table = Table("", "purity %", "clusters in use", title=f"{len(found['head'])} photos, step {trained.step}")
    for name, values in found.items():
        table.add_row(name, *(f"{x:.1f}" for x in np.nanmean(values, axis=0) * (100, 1)))
    console.print(table)
    return {name: float(np.nanmean(values, axis=0)[0]) for name, values in found.items()}


def one_window(windows: Windows, image: np.ndarray) -> Float[np.ndarray, "1 side side 3"]:
    """The photo as a window; UserError if it needs several."""
    cut = windows.cut(image)
    if len(cut) > 1:
        raise UserError(f"a photo has {len(cut)} windows: give a run whose first evaluation has a window for all of it")
    return cut


def main(arguments: Sequence[str] | None = None) -> None:
    """Measures and prints."""
    measure_run(measure, __doc__, 300, arguments)


if __name__ == "__main__":
    main()
