"""Where the attention to novel classes lies, on photos with masks."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Sequence
from typing import NamedTuple

import numpy as np
from jaxtyping import Bool, Float

from larvseg_jax.models.resize import bilinear_matrix
from larvseg_jax.report.cards import GalleryItem

ATTENTION = "attention: "
"""How the caption of an attention map begins, before its class."""

MOST_ATTENDED = 0.05  # of the pixels


class OnPhoto(NamedTuple):
    """How the attention map of a class lies on a photo.

    Attributes:
      inside, outside: mean attention on the object and off it; equal where the map knows nothing.
      point: 1 if the most attended pixel is on the object, else 0.
      purity: of the most attended pixels (MOST_ATTENDED of all), the share on the object.
      area: share of the photo that the object fills, which is the purity of chance.
    """

    inside: float
    outside: float
    point: float
    purity: float
    area: float


def on_photo(attention: Float[np.ndarray, "p q"], shown: Bool[np.ndarray, "h w"]) -> OnPhoto:
    """The map is enlarged to the photo bilinearly; of equally attended pixels the first counts."""
    rows, columns = (bilinear_matrix(n, size) for n, size in zip(attention.shape, shown.shape, strict=True))
    fine = rows @ attention.astype(np.float32) @ columns.T
    most = np.argsort(-fine, axis=None, kind="stable")[: max(round(MOST_ATTENDED * fine.size), 1)]
    return OnPhoto(
        float(fine[shown].mean()),
        float(fine[~shown].mean()),
        float(shown.ravel()[most[0]]),
        float(shown.ravel()[most].mean()),
        float(shown.mean()),
    )


def by_class(
    photos: Iterable[GalleryItem], names: Sequence[str], novel: Collection[str]
) -> dict[str, tuple[int, OnPhoto]]:
    """Novel class -> of how many photos there is a map of it, and the means over these."""
    found: dict[str, list[OnPhoto]] = {}
    for item in photos:
        for caption, attention in item.figures:
            name = caption.removeprefix(ATTENTION)
            if item.truth is None or not caption.startswith(ATTENTION) or name not in novel:
                continue
            shown = item.truth == list(names).index(name)
            if shown.any() and not shown.all():
                found.setdefault(name, []).append(on_photo(attention, shown))
    return {name: (len(rows), OnPhoto(*np.mean(rows, 0).tolist())) for name, rows in sorted(found.items())}
