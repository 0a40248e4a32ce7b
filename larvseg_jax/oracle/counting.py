"""Which pixels of labelled photos are predicted as what, by features of a few of their own pixels."""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from concurrent import futures
from typing import NamedTuple

import numpy as np
from jaxtyping import Bool

from data_pipelines import transforms
from data_pipelines.examples import Source
from larvseg_jax.console import track
from larvseg_jax.errors import UserError
from larvseg_jax.evaluation.metrics import SegmentationCounts
from larvseg_jax.oracle.cosines import Drawing, PixelFeatures, label_map
from larvseg_jax.vocabulary import IGNORE_LABEL

_MOST_THREADS = 8  # photos under way; the device takes one at a time

Embed = Callable[[np.ndarray], Sequence[np.ndarray]]
"""(H, W, 3) normalised photo -> (h, w, d) float32 unit patch features, of each kind there is."""


class Pixels(NamedTuple):
    """Which pixels are scored: those of the classes that compete."""

    name: str
    competing: Bool[np.ndarray, " n"]


def count(
    embed: Embed,
    kinds: int,
    source: Source,
    scale: tuple[int, int],
    drawing: Drawing,
    scored: Sequence[Pixels],
    limit: int = 0,
) -> list[list[list[SegmentationCounts]]]:
    """Counts of every kind of features, every choice of pixels and every repeat, over the photos of a source.

    All kinds lend their features from the same pixels, so that they can be compared draw by draw.

    Args:
      embed: the network; called once for each photo.
      kinds: how many kinds of features it gives.
      source: photos with masks; columns are those of `competing`.
      scale: (long side, short side) limits at test scale, pixels; aspect ratio kept.
      drawing: which pixels lend their features.
      scored: which pixels count, and which classes compete.
      limit: only the first so many photos; 0 = all.

    Raises:
      UserError: features that are not finite, with the photo's id.
    """

    def of_photo(index: int) -> list[SegmentationCounts]:
        example = source[index]
        image = transforms.eval_transform(example["image"], scale)
        label = transforms.resize_label(example["label"], image.shape[:2])
        shown = [int(c) for c in np.unique(label) if c != IGNORE_LABEL]
        draws = [{c: drawing.pixels(label, c, repeat, index) for c in shown} for repeat in range(drawing.repeats)]
        truths = []
        for _, competing in scored:
            counted = np.append(competing, False)[example["label"]]  # the last one is for IGNORE_LABEL, -1
            truths.append(np.where(counted, example["label"], np.int32(IGNORE_LABEL)))
        counts = []
        for patches in embed(image):
            if not np.isfinite(patches).all():
                raise UserError(f"features of photo {example['id']!r} are not finite: the weights have diverged")
            features = PixelFeatures.of(patches, label.shape)
            for (_, competing), truth in zip(scored, truths, strict=True):
                for drawn in draws:
                    prediction = label_map(features, drawn, competing, truth.shape)
                    counts.append(SegmentationCounts.zeros(len(competing)).add(prediction, truth))
        return counts

    total = min(limit or len(source), len(source))
    sums = [SegmentationCounts.zeros(len(p.competing)) for _ in range(kinds) for p in scored] * drawing.repeats
    with futures.ThreadPoolExecutor(min(_MOST_THREADS, len(os.sched_getaffinity(0)))) as pool:
        for counts in track(pool.map(of_photo, range(total)), total, "oracle test"):
            sums = [a + b for a, b in zip(sums, counts, strict=True)]
    left = iter(sums)
    return [[[next(left) for _ in range(drawing.repeats)] for _ in scored] for _ in range(kinds)]
