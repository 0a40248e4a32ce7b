"""The classes in your photos: python -m larvseg_jax.predict --run=runs/x --image=photo.jpg --classes=cat,dog.

Writes for every photo an overlay with a legend, a 16-bit label map, and a JSON file that names its labels.
--run takes the folder of a run, of a checkpoint, or a .safetensors file (docs/predict.md).
"""

from __future__ import annotations

import argparse
import dataclasses
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from larvseg_jax.errors import UserError

if TYPE_CHECKING:
    from larvseg_jax.prediction import Predictor, Sizes


def main(arguments: Sequence[str] | None = None) -> None:
    """Command line; bad input becomes one line on stderr and exit code 2."""
    given = _parser().parse_args(arguments)
    try:
        predict(given)
    except UserError as error:
        print(f"error: {error}", file=sys.stderr)
        sys.exit(2)


def predict(given: argparse.Namespace) -> None:
    """Predicts all pictures, writes the files and prints a table for each."""
    # Imported late: a mistyped option or picture is answered before JAX has started.
    from larvseg_jax import prediction_files
    from larvseg_jax.prediction import Predictor
    from larvseg_jax.progress import console, stage, track

    pictures = prediction_files.find_pictures(given.image)
    targets = prediction_files.targets(pictures, given.out)
    with stage("model"):
        predictor = Predictor.load(given.run, given.step)
        if given.scale is not None or given.whole:
            predictor.sizes = _sizes(predictor, given)
    options = dict(
        classes=[name.strip() for name in given.classes.split(",")] if given.classes else None,
        top_k=given.top_k,
        probabilities=given.probabilities,
        memory=int(given.memory_gb * 2**30),
    )
    largest = max(map(prediction_files.picture_size, pictures), key=lambda size: size[0] * size[1])
    needed = predictor.peak_memory(largest, **options)
    console.print(
        f"peak memory: at most {needed / 2**30:.2f} GiB above the weights ({predictor.weight_bytes / 2**30:.2f} GiB), "
        f"for {largest[1]} x {largest[0]} pixels"
    )
    for picture, target in track(zip(pictures, targets, strict=True), len(pictures), "prediction"):
        image = prediction_files.read_picture(picture)
        found = predictor(image, **options)
        written = prediction_files.write(target, picture, image, found, str(given.run))
        console.print(prediction_files.table(picture, found))
        console.print(f"written: {', '.join(map(str, written))}", markup=False)


def _sizes(predictor: Predictor, given: argparse.Namespace) -> Sizes:
    """The sizes of the run's evaluation, but for what the command line says."""
    sizes = predictor.sizes if given.scale is None else dataclasses.replace(predictor.sizes, scale=given.scale)
    return dataclasses.replace(sizes, window=0) if given.whole else sizes


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(description="The best classes of every pixel of your photos.")
    add = parser.add_argument
    add("--run", type=Path, required=True, help="folder of a run or a checkpoint, or a .safetensors file")
    add("--image", type=Path, required=True, nargs="+", help="photos, or folders of photos")
    add("--classes", help="names of the classes that compete, separated by commas; by default all")
    add("--top_k", type=int, help="classes per pixel (default: 5, or all that compete if they are fewer)")
    add("--out", type=Path, default=Path("predictions"), help="folder, or for one photo a name ending in .png")
    add("--memory_gb", type=float, default=1.5, help="memory above the weights that may be used, GiB")
    add("--probabilities", action="store_true", help="softmax over all classes (much slower with many)")
    add("--scale", type=_scale, help="LONG,SHORT: limits of the resized photo's sides, if not as in the evaluation")
    add("--whole", action="store_true", help="the whole photo at once instead of sliding windows")
    add("--step", type=int, help="step of the checkpoint; by default the newest")
    return parser


def _scale(text: str) -> tuple[int, int]:
    try:
        long, short = map(int, text.split(","))
    except ValueError:
        raise argparse.ArgumentTypeError(f"{text!r} is not two numbers such as 2048,512") from None
    return long, short


if __name__ == "__main__":
    main()
