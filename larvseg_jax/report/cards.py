"""Photos of the report, as its template takes them: what was predicted, beside the truth and the method's maps."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from typing import Any

import cv2
import numpy as np
from jaxtyping import Float, Int32, UInt8

from larvseg_jax.evaluation.metrics import Summary
from larvseg_jax.report import colours
from larvseg_jax.report.clusters import PhotoClusters, paint_clusters
from larvseg_jax.report.html import jpeg_url
from larvseg_jax.vocabulary import IGNORE_LABEL

_PICTURE_SIDE = 480  # longest side of a picture, pixels; shown smaller, and at its size or larger when clicked
_CHIPS = 10  # classes named under a photo


@dataclasses.dataclass(frozen=True)
class GalleryItem:
    """One photo of the report.

    Attributes:
      id: of the photo.
      image: RGB.
      prediction: columns of the summary's names.
      truth: the same, IGNORE_LABEL where unlabelled; None if the photo has no mask.
      figures: caption and map in [0, 1], of any size.
      note: what else there is to say of it, such as its tags.
      clusters: into which the method put it, if it does, with their classes.
    """

    id: str
    image: UInt8[np.ndarray, "h w 3"]
    prediction: Int32[np.ndarray, "h w"]
    truth: Int32[np.ndarray, "h w"] | None = None
    figures: tuple[tuple[str, Float[np.ndarray, "p q"]], ...] = ()
    note: str = ""
    clusters: PhotoClusters | None = None


def photo_card(item: GalleryItem, summary: Summary, palette: UInt8[np.ndarray, "n 3"]) -> dict[str, Any]:
    """The pictures of one photo, and the classes it shows with their colours."""
    shape = _shown_shape(item.image.shape[0], item.image.shape[1])
    image = cv2.resize(item.image, shape[::-1], interpolation=cv2.INTER_AREA)
    clear = summary.groups.index("background") if "background" in summary.groups else IGNORE_LABEL

    def picture(caption: str, pixels: np.ndarray) -> dict[str, str]:
        return dict(caption=caption, url=jpeg_url(pixels))

    def painted(label: np.ndarray) -> np.ndarray:
        small = cv2.resize(label, shape[::-1], interpolation=cv2.INTER_NEAREST)
        return colours.overlay(image, small, palette, clear)

    pictures = [picture("photo", image)]
    right = None
    if item.truth is not None:
        pictures.append(picture("truth", painted(item.truth)))
        labelled = item.truth != IGNORE_LABEL
        right = float((item.prediction == item.truth)[labelled].mean()) if labelled.any() else None
    pictures.append(picture("prediction", painted(item.prediction)))
    if item.clusters is not None:
        pictures.append(
            picture("clusters and their names", paint_clusters(image, item.clusters, summary.names, palette))
        )
    for caption, figure in item.figures:
        pictures.append(picture(caption, colours.heat_map(image, figure)))
    shown = _classes_shown(item)[:_CHIPS]
    return dict(
        id=item.id,
        note=item.note,
        right=right,
        pictures=pictures,
        chips=[dict(name=summary.names[i], group=summary.groups[i], colour=palette[i]) for i in shown if i != clear],
    )


def _classes_shown(item: GalleryItem) -> list[int]:
    """Columns in the truth or the prediction of a photo, the largest first."""
    maps = [item.prediction] if item.truth is None else [item.truth, item.prediction]
    columns, pixels = np.unique(np.concatenate([m.ravel() for m in maps]), return_counts=True)
    order = np.argsort(-pixels, kind="stable")
    return [int(c) for c in columns[order] if c != IGNORE_LABEL]


def legend(gallery: Sequence[GalleryItem], summary: Summary, palette: UInt8[np.ndarray, "n 3"]) -> list[dict[str, Any]]:
    """Every class that the gallery shows, in the order of the label set."""
    columns = sorted({i for item in gallery for i in _classes_shown(item)})
    return [
        dict(name=summary.names[i], group=summary.groups[i], colour=palette[i])
        for i in columns
        if summary.groups[i] != "background"
    ]


def _shown_shape(height: int, width: int) -> tuple[int, int]:
    factor = min(_PICTURE_SIDE / max(height, width), 2.0)
    return max(round(height * factor), 1), max(round(width * factor), 1)
