"""From a model in a file to one that knows one more class."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
from jaxtyping import Bool, UInt8

from larvseg_jax.console import console, in_bytes, printable, stage
from larvseg_jax.export import write_model
from larvseg_jax.teach.lesson import taught
from larvseg_jax.trained import load_trained


def teach(
    model: Path,
    name: str,
    photos: Sequence[UInt8[np.ndarray, "_h _w 3"]],
    pixels: Sequence[Bool[np.ndarray, "_h _w"]] | None,
    to: Path,
    *,
    step: int | None = None,
    pretrained: Path | None = None,
) -> None:
    """Teaches a model a class and writes it, with all its weights in float32.

    Args:
      model: folder of a run or of a checkpoint, or an exported file.
      name: of the class.
      photos, pixels: as `lesson.taught` takes them.
      to: the .safetensors file to write.
      step: which checkpoint; the newest by default.
      pretrained: the weights that an exported file leaves out (`trained.load_trained`).

    Raises:
      UserError: the model knows the name, nothing can be learnt from the photos, or the file cannot be written.
    """
    with stage("model"):
        trained = load_trained(model, step, pretrained=pretrained)
    with stage("photos"):
        grown = taught(trained, trained.windows, name, photos, pixels)
    with stage("writing"):
        write_model(grown, to)
    classes = len(grown.vocabulary.classes)
    console.print(f"{to}: {classes} classes, {printable(name)} is a novel one, {in_bytes(to.stat().st_size)}")
