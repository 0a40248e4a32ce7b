"""One more class, without training: larvseg teach mug --model=runs/x --image=a.jpg --point=120,80 --out=x.safetensors.

The photos show the class; --mask (for each photo, in their order) or --point (at least one in each) says where. With
neither, what of the photos is no background is taken. The file has the whole model and the new class, among the novel
ones; `larvseg predict --model=FILE` and this command take it (docs/teach.md).
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path

from larvseg_jax.cli import Flags, Given
from larvseg_jax.commands._places import MODEL, check_output, define_pretrained, pretrained_of
from larvseg_jax.errors import UserError
from larvseg_jax.predict.pictures import as_rgb
from larvseg_jax.shipped.shipped import located
from larvseg_jax.teach.request import check_lists, check_new, names_of, pixels_shown
from larvseg_jax.weights.places import check_model, stated_classes

TAKES_REST = True  # the name


def define(flags: Flags) -> None:
    """Adds the flags."""
    flags.text("model", None, f"The model: {MODEL}.", required=True)
    flags.whole("step", None, "Step of the checkpoint; by default the newest.", least=0)
    define_pretrained(flags)
    flags.texts("image", "A photo that shows the class; once for each.")
    flags.texts("mask", "A picture of the photo's size that is not zero where the class is; for each photo, in order.")
    flags.texts("point", "FILE:X,Y or, if there is one photo, X,Y: a pixel that shows the class; may be given often.")
    flags.text("out", None, "File to write, ending in .safetensors.", required=True)


def main(given: Given) -> None:
    """Teaches the class and writes the model."""
    if len(given.rest) != 1:
        raise UserError(f'give one name of a class, quoted if it has blanks (larvseg teach "my mug"): {_said(given)}')
    name, photos = given.rest[0], list(given.image)
    points = _points(given.point, photos) if given.point else None
    check_lists(photos, points, list(given.mask) or None)
    check_output(given.out, "out", ".safetensors")
    model, pretrained = located(given.model, pretrained_of(given))
    check_model(model, given.step)
    stated = stated_classes(model, given.step)
    if stated is not None:
        check_new(stated[0], name)
    images = [as_rgb(photo) for photo in photos]
    sizes = [(len(image), len(image[0])) for image in images]
    pixels = pixels_shown(names_of(photos), sizes, points, list(given.mask) or None)
    # Imported late: a mistyped flag is answered before JAX has started.
    from larvseg_jax.teach.teach import teach

    teach(model, name, images, pixels, Path(given.out), step=given.step, pretrained=pretrained)


def _said(given: Given) -> str:
    return f"there are {len(given.rest)}, {', '.join(map(repr, given.rest))}" if given.rest else "there is none"


def _points(texts: Sequence[str], photos: Sequence[str]) -> list[list[tuple[float, float]]]:
    """For each photo its points; UserError for a text that is none, or is of no photo."""
    found: dict[str, list[tuple[float, float]]] = {photo: [] for photo in photos}
    for text in texts:
        photo, _, numbers = text.rpartition(":")
        matched = re.fullmatch(r"(-?\d+(?:\.\d*)?),(-?\d+(?:\.\d*)?)", numbers)
        if matched is None:
            raise UserError(f"--point={text} is no point: give FILE:X,Y such as a.jpg:120,80, in pixels of the photo")
        if not photo and len(photos) == 1:
            photo = photos[0]
        if photo not in found:
            of = f"of {photo}, which no --image names" if photo else "of which of the photos"
            raise UserError(f"--point={text}: {of}: give FILE:X,Y with FILE as in --image")
        found[photo].append((float(matched[1]), float(matched[2])))
    return [found[photo] for photo in photos]
