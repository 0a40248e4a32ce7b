"""Segments photos by a shipped model, and puts them into one picture."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

from larvseg_jax.console import console, printable
from larvseg_jax.demo.sheet import MOST, is_sheet, write_sheet
from larvseg_jax.errors import UserError
from larvseg_jax.predict.predict import predict
from larvseg_jax.shipped.backbone import fetch
from larvseg_jax.shipped.shipped import MODELS

MODEL = "animals"


def demo(
    targets: Mapping[Path, Path], sheet: Path, pretrained: Path | None, missing: Sequence[UserError] = ()
) -> list[UserError]:
    """Segments photos with `MODEL` and shows them in one picture; returns what is wrong with the others.

    Args:
      targets: photo -> the file of its overlay.
      sheet: the JPEG to write (`write_sheet`).
      pretrained: the weights under the model; None: those in the cache folder, fetched if need be.
      missing: what is wrong with photos that are not among these.

    Raises:
      UserError: the weights cannot be had, or a file not be written.
    """
    photos = {photo: target for photo, target in targets.items() if not is_sheet(photo)}  # of an earlier call
    problems = predict(MODELS[MODEL], photos, pretrained=pretrained or fetch(), missing=missing)
    written = write_sheet({photo: target for photo, target in photos.items() if target.is_file()}, sheet)
    if written is not None:
        shown = "all of them" if len(photos) <= MOST else f"the first {MOST}"
        console.print(f"{shown} in one picture: {printable(written)}")
    return problems
