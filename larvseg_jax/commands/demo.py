"""A first look: larvseg demo [photo.jpg folder/] segments your photos, or five that come with the program.

By a model that comes with the program: ten classes learnt from masks (person, cat, horse, ...), and dog, cow and sheep
from tags alone. The pretrained ViT under it is fetched once (90 MB, by pip). Writes what `larvseg predict` writes, and
one picture of all photos, sheet.jpg.
"""

from __future__ import annotations

from pathlib import Path

from larvseg_jax.cli import Flags, Given, fail
from larvseg_jax.commands._places import define_pretrained, pretrained_of
from larvseg_jax.predict.names import targets
from larvseg_jax.predict.photos import find_photos
from larvseg_jax.shipped.shipped import PHOTOS

TAKES_REST = True  # photos
INTERRUPTED = "what was written is whole; the same command begins again"


def define(flags: Flags) -> None:
    """Adds the flags."""
    flags.text("out", "demo", "Folder for the files.")
    define_pretrained(flags)


def main(given: Given) -> None:
    """Segments the photos; the exit code is 2 if some could not be."""
    found, missing = find_photos([Path(name) for name in given.rest] or [PHOTOS])
    if not found:
        fail(*missing)
    out = Path(given.out)
    written_to = dict(zip(found, targets(found, out), strict=True))
    pretrained = pretrained_of(given)
    # Imported late: a mistyped flag is answered before JAX has started.
    from larvseg_jax.demo.demo import demo

    if problems := demo(written_to, out / "sheet.jpg", pretrained, missing):
        fail(*problems)
