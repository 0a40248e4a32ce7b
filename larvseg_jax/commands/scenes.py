"""Draws the generated scenes as a TFDS data set: python -m data_pipelines.scenes --data_root=data.

`--grounds=one` draws those in which each novel class is found on one ground only, beside the others. `--streets=DIR`
writes made street scenes instead, as a folder of one's own data with a list of tags (docs/own_data.md), and
`--captions=DIR` scenes with captions, masks and tags (docs/captions.md).
"""

from __future__ import annotations

import os

from larvseg_jax.cli import Flags, Given
from larvseg_jax.console import console
from larvseg_jax.errors import UserError


def define(flags: Flags) -> None:
    """Adds the flags."""
    flags.text(
        "data_root",
        os.environ.get("LARVSEG_DATA", "."),
        "Folder of the prepared data sets; by default the environment variable LARVSEG_DATA, or this folder.",
    )
    flags.text("grounds", "several", "On how many grounds a novel class is found: several, or one (the hard setting).")
    flags.text("streets", None, "New folder for made street scenes, instead of the data set.")
    flags.text("captions", None, "New folder for scenes with captions, instead of the data set.")
    flags.whole("pairs", 8000, "With --captions: scenes to learn from.", least=1)
    flags.whole("masked", 200, "With --streets: photos with masks.", least=1)
    flags.whole("tagged", 400, "With --streets: photos with tags.", least=0)


def main(given: Given) -> None:
    """Draws all parts that are not there yet."""
    from data_pipelines.scenes.builder import write_scenes
    from data_pipelines.scenes.captions import VALIDATION, write_captioned
    from data_pipelines.scenes.classes import HABITATS
    from data_pipelines.scenes.streets import NOVEL, write_streets

    if given.streets is not None:
        folder = write_streets(given.streets, given.masked, given.tagged)
        console.print(f"{folder}: {given.masked} photos with masks, {given.tagged} with tags; novel={'+'.join(NOVEL)}")
        return
    if given.grounds not in HABITATS:
        raise UserError(f"--grounds={given.grounds}: use {' or '.join(HABITATS)}")
    if given.captions is not None:
        folder = write_captioned(given.captions, given.pairs, given.grounds)
        console.print(f"{folder}: {given.pairs} scenes with captions, {VALIDATION} others to measure")
        return
    write_scenes(given.data_root, given.grounds)
