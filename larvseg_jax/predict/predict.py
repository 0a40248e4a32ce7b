"""Predicts photos in files: a table on the terminal, and files beside each other."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from pathlib import Path

from larvseg_jax.console import console, in_gib, stage, track
from larvseg_jax.predict import files
from larvseg_jax.predict.predictor import DEFAULT_MEMORY, Predictor
from larvseg_jax.trained import load_trained


def predict(
    run: Path,
    photos: Sequence[Path],
    out: Path,
    *,
    step: int | None = None,
    classes: Sequence[str] | None = None,
    top_k: int | None = None,
    probabilities: bool = False,
    memory: int = DEFAULT_MEMORY,
    scale: tuple[int, int] | None = None,
    whole: bool = False,
) -> None:
    """Predicts all photos, writes the files and prints a table for each.

    Args:
      run: folder of a run or of a checkpoint, or an exported file.
      photos: photos, or folders of photos.
      out: folder for the files, or for one photo a name ending in .png.
      step: which checkpoint; the newest by default.
      classes, top_k, probabilities, memory: see `Predictor`.
      scale: (long, short) limits of the resized photo's sides, if not as in the evaluation.
      whole: the whole photo at once instead of sliding windows.
    """
    pictures = files.find_pictures(photos)
    targets = files.targets(pictures, out)
    with stage("model"):
        trained = load_trained(run, step)
    windows = dataclasses.replace(trained.windows, scale=scale or trained.windows.scale)
    predictor = Predictor(trained, dataclasses.replace(windows, window=0) if whole else windows)
    largest = max(map(files.picture_size, pictures), key=lambda size: size[0] * size[1])
    needed = predictor.peak_memory(largest, classes, top_k, probabilities=probabilities, memory=memory)
    console.print(
        f"peak memory: at most {in_gib(needed)} above the weights ({in_gib(predictor.weight_bytes)}), "
        f"for {largest[1]} x {largest[0]} pixels"
    )
    for picture, target in track(zip(pictures, targets, strict=True), len(pictures), "prediction"):
        image = files.read_picture(picture)
        found = predictor(image, classes, top_k, probabilities=probabilities, memory=memory)
        written = files.write(target, picture, image, found, str(run))
        console.print(files.table(picture, found))
        console.print(f"written: {', '.join(map(str, written))}", markup=False)
