"""A lesson: photos of a class and what of them shows it, and the model that knows it."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from jaxtyping import Bool, UInt8

from larvseg_jax.evaluation.windows import Windows
from larvseg_jax.teach.join import with_class
from larvseg_jax.teach.patches import PatchReader
from larvseg_jax.teach.request import check_new
from larvseg_jax.teach.vectors import of_pixels, of_tags
from larvseg_jax.trained import Trained


def taught(
    trained: Trained,
    windows: Windows,
    name: str,
    photos: Sequence[UInt8[np.ndarray, "_h _w 3"]],
    pixels: Sequence[Bool[np.ndarray, "_h _w"]] | None = None,
) -> Trained:
    """The model with one more class, the last, among the novel ones.

    Args:
      trained: the model.
      windows: how photos are resized and cut.
      name: of the class.
      photos: RGB, each shows it.
      pixels: of each photo those that show it (`request.pixels_shown`); None: what all photos share is taken.

    Raises:
      UserError: the name is taken, or nothing can be learnt from the photos.
    """
    check_new(trained.vocabulary, name)
    read = PatchReader(trained, windows)
    seen = [read(photo) for photo in photos]
    return with_class(trained, name, of_tags(seen) if pixels is None else of_pixels(seen, pixels))
