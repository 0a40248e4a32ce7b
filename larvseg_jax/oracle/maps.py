"""Pictures of the oracle test: a photo, its truth, and of each class the cosines to its drawn pixels (Figure 2)."""

from __future__ import annotations

import io
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
from jaxtyping import UInt8
from PIL import Image, ImageDraw

from data_pipelines import transforms
from larvseg_jax.console import track
from larvseg_jax.disk import write_bytes
from larvseg_jax.oracle.cosines import Drawing, PixelFeatures
from larvseg_jax.oracle.networks import Features
from larvseg_jax.oracle.photos import Labelled
from larvseg_jax.report.colours import class_colours, heat_map, overlay
from larvseg_jax.report.gallery import choose_photos
from larvseg_jax.report.lettering import can_draw, draw_text
from larvseg_jax.vocabulary import IGNORE_LABEL

_PER_ROW = 4  # panels
_LEAST_SIDE = 200  # pixels: smaller panels are enlarged, so that captions fit
_CAPTION = 22  # pixels
_DOT = 5  # radius, pixels
_SPACE = 6


class Panel(NamedTuple):
    """A picture with what stands above it, and the colour of its class in the truth."""

    caption: str
    colour: tuple[int, int, int] | None
    image: UInt8[np.ndarray, "h w 3"]


def write_maps(
    folder: Path, found: Features, photos: Labelled, scale: tuple[int, int], drawing: Drawing, most: int
) -> list[Path]:
    """Writes a PNG for each of some photos, those with novel classes first; returns their paths.

    The maps are of the last kind of features, to the pixels of the first draw; each goes from its least to its greatest
    cosine, which its caption has.
    """
    novel = {int(column) for of in photos.groups for column in np.flatnonzero(of.novel)}
    chosen = choose_photos(photos.source, photos.total, novel, most)
    paths = []
    for number in track(sorted(chosen), len(chosen), "maps"):
        png = io.BytesIO()
        sheet(panels_of(number, found, photos, scale, drawing)).save(png, "PNG")
        paths.append(folder / f"photo_{number:05d}.png")
        write_bytes(paths[-1], png.getvalue())
    return paths


def panels_of(number: int, found: Features, photos: Labelled, scale: tuple[int, int], drawing: Drawing) -> list[Panel]:
    """Photo, truth, and the map of each class that the label shows at test scale: novel ones first, then by size."""
    example = photos.source[number]
    size = transforms.resized_shape(example["image"].shape[0], example["image"].shape[1], scale)
    image = transforms.resize_image(example["image"], size)
    label = transforms.resize_label(example["label"], size)
    features = PixelFeatures.of(found.embed(transforms.normalise(image))[-1], size)
    colours, groups = class_colours(photos.names), photos.vocabulary.groups(photos.names)
    background = photos.names.index(photos.vocabulary.background) if "background" in groups else IGNORE_LABEL
    panels = [Panel("photo", None, _enlarged(image))]
    panels.append(Panel("truth", None, _enlarged(overlay(image, label, colours, background))))
    columns, pixels = np.unique(label[label != IGNORE_LABEL], return_counts=True)
    order = {"novel": 0, "base": 1, "": 1}
    shown = sorted(
        zip(columns.tolist(), pixels.tolist(), strict=True), key=lambda x: (order.get(groups[x[0]], 2), -x[1])
    )
    for column, _ in shown:
        drawn = drawing.pixels(label, column, 0, number)
        cosines = features.greatest_cosine(features.at(drawn))
        low, high = float(cosines.min()), float(cosines.max())
        picture = _enlarged(heat_map(image, (cosines - low) / max(high - low, 1e-6)))
        factor = picture.shape[0] / size[0]
        places = np.stack(np.divmod(drawn, size[1]), -1)
        dots = [(int((x + 0.5) * factor), int((y + 0.5) * factor)) for y, x in places]
        name = photos.names[column] if can_draw(photos.names[column]) else f"class {column}"
        kind = f" ({groups[column]})" if groups[column] in ("base", "novel") else ""
        colour = tuple(colours[column].tolist())
        panels.append(Panel(f"{name}{kind}  {low:.2f} to {high:.2f}", colour, _with_dots(picture, dots)))
    return panels


def sheet(panels: Sequence[Panel]) -> Image.Image:
    """The panels, all of one size, in rows, each with its caption above."""
    height, width = panels[0].image.shape[:2]
    rows = -(-len(panels) // _PER_ROW)
    across = min(len(panels), _PER_ROW)
    page = Image.new("RGB", (across * (width + _SPACE), rows * (height + _CAPTION + _SPACE)), (255, 255, 255))
    draw = ImageDraw.Draw(page)
    for i, (caption, colour, image) in enumerate(panels):
        left, top = (i % _PER_ROW) * (width + _SPACE), (i // _PER_ROW) * (height + _CAPTION + _SPACE)
        indent = 0
        if colour is not None:
            draw.rectangle((left, top + 4, left + 12, top + 16), fill=colour, outline=(0, 0, 0))
            indent = 18
        draw_text(draw, (left + indent, top + 2), caption, width - indent)
        page.paste(Image.fromarray(image), (left, top + _CAPTION))
    return page


def _enlarged(image: UInt8[np.ndarray, "h w 3"]) -> UInt8[np.ndarray, "H W 3"]:
    factor = -(-_LEAST_SIDE // image.shape[1])
    return image.repeat(factor, axis=0).repeat(factor, axis=1)


def _with_dots(image: UInt8[np.ndarray, "h w 3"], dots: Sequence[tuple[int, int]]) -> UInt8[np.ndarray, "h w 3"]:
    """Dots at (x, y): cyan, which the colours of maps are not, in a white ring."""
    shown = Image.fromarray(image)
    draw = ImageDraw.Draw(shown)
    for x, y in dots:
        draw.ellipse((x - _DOT, y - _DOT, x + _DOT, y + _DOT), fill=(0, 220, 220), outline=(255, 255, 255), width=2)
    return np.asarray(shown)
