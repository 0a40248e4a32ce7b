"""Draws the generated scenes as a TFDS data set: python -m data_pipelines.scenes --data_root=data."""

from __future__ import annotations

import os

from larvseg_jax.cli import Flags, Given


def define(flags: Flags) -> None:
    """Adds the flags."""
    flags.text(
        "data_root",
        os.environ.get("LARVSEG_DATA", "."),
        "Folder of the prepared data sets; by default the environment variable LARVSEG_DATA, or this folder.",
    )


def main(given: Given) -> None:
    """Draws all parts that are not there yet."""
    from data_pipelines.scenes.builder import write_scenes

    write_scenes(given.data_root)
