"""The vector of a class that a model has not learnt, from pixels, masks or tags of a few photos.

All unit features share some of their direction, whatever they show, and the vectors of classes that were learnt do not.
So three quarters of the mean of all pixels of the photos is taken off the mean of the class's pixels. In a trial on the
animals of docs/results.md (21) half of it taught as well but took nearly twice as much from the learnt classes, and
all of it spared these and taught worse.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from jaxtyping import Bool, Float32, Int

from larvseg_jax.errors import UserError
from larvseg_jax.teach.patches import PhotoPatches

COMMON = 0.75
"""How much of the mean of everything is taken off."""

TOPK = 20
"""K: patches of a photo that are its most likely ones when only tags are given, as the memory bank takes them."""

_ROUNDS = 10


def of_pixels(photos: Sequence[PhotoPatches], pixels: Sequence[Bool[np.ndarray, "H W"]]) -> Float32[np.ndarray, " d"]:
    """The vector of what the chosen pixels show; every photo counts alike, whatever the size of the object.

    Args:
      photos: in which it is.
      pixels: of each photo, those that show it: a mask, or a few that were clicked.

    Raises:
      UserError: no pixel was chosen in some photo, or nothing tells the chosen ones from the others.
    """
    chosen = []
    for number, (photo, mask) in enumerate(zip(photos, pixels, strict=True)):
        if not mask.any():
            raise UserError(f"photo {number + 1} of {len(photos)} has no pixel of the class: leave it out")
        chosen.append(photo.mean(mask.astype(np.float32)))
    return _unit(np.mean(chosen, 0) - COMMON * _everywhere(photos))


def of_things(
    photos: Sequence[PhotoPatches], things: Sequence[Bool[np.ndarray, "p q"]]
) -> Float32[np.ndarray, " d"] | None:
    """The vector of what tagged photos show besides their background; None if no photo shows anything.

    Args:
      photos: all show the class.
      things: of each photo the patches that the model does not take for background.
    """
    shown = [photo.features[mask].mean(0) for photo, mask in zip(photos, things, strict=True) if mask.any()]
    return _unit(np.mean(shown, 0) - COMMON * _everywhere(photos)) if shown else None


def of_tags(photos: Sequence[PhotoPatches], topk: int = TOPK) -> Float32[np.ndarray, " d"]:
    """The vector of what all photos have in common and their surroundings have not, by a small memory bank.

    As in training (method 6), each photo leaves the K patches that score highest for the class, and what scores is the
    mean of what all *other* photos left, minus the mean of everything. It begins with the patches of each photo that
    are most like some patch of every other photo.

    Raises:
      UserError: fewer than two photos, which have nothing in common, or photos of fewer than K patches.
    """
    if len(photos) < 2:
        raise UserError("one tagged photo does not say which of its pixels are meant: give two, or points or a mask")
    flat = [photo.features.reshape(-1, photo.features.shape[-1]) for photo in photos]
    if min(map(len, flat)) < topk:
        raise UserError(f"a photo has {min(map(len, flat))} patches, fewer than the {topk} that are taken of each")
    everywhere = _everywhere(photos)
    centred = [_rows(patches - everywhere) for patches in flat]
    best = [_best(_likeness(number, centred), topk) for number in range(len(centred))]
    for _ in range(_ROUNDS):
        bank = np.stack([patches[chosen].mean(0) for patches, chosen in zip(centred, best, strict=True)])
        others = [_unit(bank.sum(0) - bank[number]) for number in range(len(bank))]
        best = [_best(patches @ vector, topk) for patches, vector in zip(centred, others, strict=True)]
    kept = [patches[chosen].mean(0) for patches, chosen in zip(flat, best, strict=True)]
    return _unit(np.mean(kept, 0) - COMMON * everywhere)


def _everywhere(photos: Sequence[PhotoPatches]) -> Float32[np.ndarray, " d"]:
    """The mean feature of all pixels, every photo alike."""
    return np.mean([photo.mean(np.ones((len(photo.rows), len(photo.columns)), np.float32)) for photo in photos], 0)


def _likeness(number: int, centred: Sequence[Float32[np.ndarray, "n d"]]) -> Float32[np.ndarray, " n"]:
    """For every patch of a photo the cosine with the patch of each other photo that is most like it, averaged."""
    own = centred[number]
    best = [(own @ other.T).max(1) for at, other in enumerate(centred) if at != number]
    return np.mean(best, 0)


def _best(scores: Float32[np.ndarray, " n"], k: int) -> Int[np.ndarray, " k"]:
    """The k patches that score highest."""
    return np.argpartition(-scores, k - 1)[:k]


def _rows(vectors: Float32[np.ndarray, "n d"]) -> Float32[np.ndarray, "n d"]:
    return vectors / np.maximum(np.linalg.norm(vectors, axis=1, keepdims=True), 1e-12)


def _unit(vector: Float32[np.ndarray, " d"]) -> Float32[np.ndarray, " d"]:
    length = np.linalg.norm(vector)
    if not length > 0:
        raise UserError("nothing tells the pixels of the class from the others: choose fewer, on the object alone")
    return (vector / length).astype(np.float32)
