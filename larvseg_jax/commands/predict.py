"""The classes in your photos: python -m larvseg_jax.predict --run=runs/x --image=photo.jpg --classes=cat,dog.

Writes for every photo an overlay with a legend, a 16-bit label map, and a JSON file that names its labels. Photos, or
folders of photos, may also stand without a flag (docs/predict.md). What cannot be read stops no other photo: it is
listed at the end, and the exit code is 2.
"""

from __future__ import annotations

from pathlib import Path

from data_pipelines.picture_files import MAX_MEGAPIXELS
from larvseg_jax.cli import Flags, Given, fail
from larvseg_jax.commands._places import define_pretrained, pretrained_of
from larvseg_jax.errors import UserError
from larvseg_jax.predict.names import targets
from larvseg_jax.predict.photos import find_photos
from larvseg_jax.weights.places import check_model

TAKES_REST = True  # photos
INTERRUPTED = "what was written is whole; the same command predicts all photos again"


def define(flags: Flags) -> None:
    """Adds the flags."""
    flags.text("run", None, "Folder of a run or of a checkpoint, or a .safetensors file.", required=True)
    flags.whole("step", None, "Step of the checkpoint; by default the newest.", least=0)
    define_pretrained(flags)
    flags.texts("image", "A photo, or a folder of photos.")
    flags.texts(
        "classes",
        "Names of the classes that compete, separated by commas, or the flag once for each; by default all. "
        "A text that is the name of a class as it stands is not separated.",
    )
    flags.whole("top_k", None, "Classes per pixel (default: 5, or all that compete if they are fewer).", least=1)
    flags.text("out", "predictions", "Folder for the files, or for one photo a name ending in .png.")
    flags.number("memory_gb", 1.5, "Memory above the weights that may be used, GiB.", least=0.0)
    flags.whole("max_megapixels", MAX_MEGAPIXELS, "The largest photo that is read, millions of pixels.", least=1)
    flags.switch("probabilities", "Softmax over all classes (much slower with many).")
    flags.text("scale", "", "LONG,SHORT: limits of the resized photo's sides, pixels, if not as in the evaluation.")
    flags.switch("whole", "The whole photo at once instead of sliding windows.")


def main(given: Given) -> None:
    """Predicts all photos, writes the files and prints a table for each; the exit code is 2 if some could not be."""
    photos = [Path(name) for name in (*given.image, *given.rest)]
    if not photos:
        raise UserError("there is no photo: give --image=photo.jpg, or a folder of photos")
    scale = _scale(given.scale) if given.scale else None
    found, missing = find_photos(photos)
    if not found:
        fail(*missing)
    written_to = dict(zip(found, targets(found, Path(given.out)), strict=True))
    check_model(Path(given.run), given.step)
    pretrained = pretrained_of(given)
    # Imported late: a mistyped flag is answered before JAX has started.
    from larvseg_jax.predict.predict import predict

    problems = predict(
        Path(given.run),
        written_to,
        step=given.step,
        pretrained=pretrained,
        classes=[text for text in given.classes if text] or None,
        top_k=given.top_k,
        probabilities=given.probabilities,
        memory=int(given.memory_gb * 2**30),
        max_megapixels=given.max_megapixels,
        scale=scale,
        whole=given.whole,
        missing=missing,
    )
    if problems:
        fail(*problems)


def _scale(text: str) -> tuple[int, int]:
    try:
        long, short = map(int, text.split(","))
    except ValueError:
        raise UserError(f"--scale={text} is not two numbers: give LONG,SHORT such as 2048,512") from None
    if min(long, short) < 1:
        raise UserError(f"--scale={text}: give two sides in pixels, LONG,SHORT such as 2048,512")
    return long, short
