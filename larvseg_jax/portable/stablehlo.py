"""A model's prediction as a file of jax.export: StableHLO and weights in one, run by JAX alone (docs/exports.md)."""

from __future__ import annotations

from collections.abc import Sequence

import jax

from larvseg_jax.models.any_device import on_any_device
from larvseg_jax.portable.program import example_photo, photo_program
from larvseg_jax.trained import Trained

PLATFORMS = ("cpu", "cuda", "tpu")


def stablehlo(trained: Trained, classes: Sequence[str], size: tuple[int, int]) -> bytes:
    """The file's content, for all of `PLATFORMS`; needs flatbuffers, with which jax.export writes."""
    program = jax.jit(photo_program(trained, classes, size))
    with on_any_device("branches"):
        return bytes(jax.export.export(program, platforms=PLATFORMS)(example_photo(size)).serialize())
