"""Draws the generated scenes as a TFDS data set: python -m data_pipelines.scenes --data_root=data.

`--grounds=one` draws those in which each novel class is found on one ground only, beside the others.
"""

from __future__ import annotations

import os

from larvseg_jax.cli import Flags, Given
from larvseg_jax.errors import UserError


def define(flags: Flags) -> None:
    """Adds the flags."""
    flags.text(
        "data_root",
        os.environ.get("LARVSEG_DATA", "."),
        "Folder of the prepared data sets; by default the environment variable LARVSEG_DATA, or this folder.",
    )
    flags.text("grounds", "several", "On how many grounds a novel class is found: several, or one (the hard setting).")


def main(given: Given) -> None:
    """Draws all parts that are not there yet."""
    from data_pipelines.scenes.builder import write_scenes
    from data_pipelines.scenes.classes import HABITATS

    if given.grounds not in HABITATS:
        raise UserError(f"--grounds={given.grounds}: use {' or '.join(HABITATS)}")
    write_scenes(given.data_root, given.grounds)
