"""A lesson: photos of a class and what of them shows it, and the model that knows it."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from jaxtyping import Bool, Float32, UInt8

from larvseg_jax.evaluation.windows import Windows
from larvseg_jax.methods.method import as_linear
from larvseg_jax.teach.join import with_class
from larvseg_jax.teach.patches import PatchReader, PhotoPatches
from larvseg_jax.teach.request import check_new
from larvseg_jax.teach.vectors import of_pixels, of_tags, of_things
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
      pixels: of each photo those that show it (`request.pixels_shown`); None: they are tagged (`of_tagged`).

    Raises:
      UserError: the name is taken, or nothing can be learnt from the photos.
    """
    check_new(trained.vocabulary, name)
    read = PatchReader(trained, windows)
    seen = [read(photo) for photo in photos]
    return with_class(trained, name, of_tagged(trained, seen) if pixels is None else of_pixels(seen, pixels))


def of_tagged(trained: Trained, photos: Sequence[PhotoPatches]) -> Float32[np.ndarray, " d"]:
    """The vector of a class that photos show somewhere: what of them the model does not take for background.

    Where it has no background, or sees nothing else, what the photos have in common (`vectors.of_tags`).
    """
    words = trained.vocabulary
    if words.background:
        learnt, background = class_vectors(trained), words.row(words.background)
        vector = of_things(photos, [(photo.features @ learnt.T).argmax(-1) != background for photo in photos])
        if vector is not None:
            return vector
    return of_tags(photos)


def class_vectors(trained: Trained, names: Sequence[str] = ()) -> Float32[np.ndarray, "n d"]:
    """Unit vectors of classes that the model knows; without names of all, row by row."""
    label_set = trained.vocabulary.label_set(names)
    scorer = as_linear(trained.method.scorer(label_set), label_set)
    return np.asarray(scorer.vectors(trained.params, trained.memory).vectors)
