"""Clusters of a photo as a picture: outlined, in the colour of their class, with its name on the largest piece."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import cv2
import numpy as np
from jaxtyping import Bool, Int32, UInt8
from PIL import Image, ImageDraw

from larvseg_jax.report.colours import overlay
from larvseg_jax.report.lettering import SIZE, can_draw, draw_text, text_width


class PhotoClusters(NamedTuple):
    """Clusters of a photo, on any grid.

    Attributes:
      clusters: of each place.
      classes: of each cluster, columns of the summary's names; -1 of those without patches.
    """

    clusters: Int32[np.ndarray, "p q"]
    classes: Int32[np.ndarray, " c"]


def paint_clusters(
    image: UInt8[np.ndarray, "h w 3"], found: PhotoClusters, names: Sequence[str], palette: UInt8[np.ndarray, "n 3"]
) -> UInt8[np.ndarray, "h w 3"]:
    """The clusters over the photo: number and class of each on its largest piece, as far as they fit into the picture.

    Clusters of one class have one colour, and a white line between them.
    """
    height, width = image.shape[:2]
    clusters = cv2.resize(found.clusters, (width, height), interpolation=cv2.INTER_NEAREST)
    picture = Image.fromarray(overlay(image, clusters, palette[found.classes]))
    draw = ImageDraw.Draw(picture)
    for cluster in np.unique(clusters).tolist():
        text = f"{cluster} {names[found.classes[cluster]]}"
        text = text if can_draw(text) else str(cluster)
        across, (row, column) = min(text_width(text), width - 4), _middle(clusters == cluster)
        left = int(np.clip(column - across // 2, 2, max(width - across - 2, 2)))
        top = int(np.clip(row - SIZE // 2, 1, max(height - SIZE - 3, 1)))
        draw.rectangle((left - 2, top - 1, left + across + 1, top + SIZE + 2), fill=(255, 255, 255))
        draw_text(draw, (left, top), text, across)
    return np.asarray(picture)


def _middle(shown: Bool[np.ndarray, "h w"]) -> tuple[int, int]:
    """Row and column of the point of the largest piece that is farthest from its border; the middle one of several."""
    _, pieces, figures, _ = cv2.connectedComponentsWithStats(shown.astype(np.uint8), connectivity=4)
    largest = 1 + int(figures[1:, cv2.CC_STAT_AREA].argmax())
    piece = np.pad((pieces == largest).astype(np.uint8), 1)  # the picture's sides are borders, too
    depth = cv2.distanceTransform(piece, cv2.DIST_L2, 3)[1:-1, 1:-1]
    deepest = np.argwhere(depth == depth.max())
    row, column = deepest[np.abs(deepest - deepest.mean(0)).sum(1).argmin()]
    return int(row), int(column)
