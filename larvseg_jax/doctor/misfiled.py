"""Tagged photos that look like another class than theirs, by the features of the pretrained network of the run."""

from __future__ import annotations

import collections
import contextlib
import dataclasses
from collections.abc import Mapping, Sequence

import cv2
import numpy as np
from jaxtyping import Float32, Int64

from data_pipelines import transforms
from larvseg_jax.config import Experiment
from larvseg_jax.console import track
from larvseg_jax.doctor.photo_sets import PhotoSet
from larvseg_jax.doctor.scan import spread
from larvseg_jax.doctor.set_report import Misfiled, SetReport
from larvseg_jax.errors import UserError
from larvseg_jax.oracle.networks import Embed, of_backbone
from larvseg_jax.weights.pretrained import check_there

_PHOTOS = 400  # of a set; more would take long on a CPU
_LEAST = 5  # photos of a class among these: of fewer nothing can be said
_SIDE = 224  # pixels: photos are squashed to squares, so that they share a program
_FAR = 2.0  # standard deviations that a photo is less like its class than its others are
_SHOWN = 12


def with_misfiled(run: Experiment, reports: Sequence[SetReport]) -> tuple[SetReport, ...]:
    """The reports, those of tagged photos with what looks misfiled; as they are where no pretrained weights are."""
    if not run.pretrained or not any(_single_tags(report) for report in reports):
        return tuple(reports)
    with contextlib.suppress(UserError):  # the weights have their own line
        check_there(run.pretrained)
        embed = of_backbone(run, "")[0].embed
        return tuple(_looked_at(report, embed) if _single_tags(report) else report for report in reports)
    return tuple(reports)


def _single_tags(report: SetReport) -> bool:
    """Whether it is a tagged set in which photos carry one tag each."""
    if report.photos is None or report.view is None or report.scan is None or report.view.reads != "tags":
        return False
    return report.scan.most_tags[0] <= 1 + len(report.view.always_tags)


def _looked_at(report: SetReport, embed: Embed) -> SetReport:
    assert report.photos is not None
    assert report.scan is not None
    photos = report.photos
    chosen = evenly(report.scan.examples, _PHOTOS)
    seen, tags, vectors = [], [], []
    for number, tag in track(chosen, len(chosen), f"{report.where}: misfiled?"):
        with contextlib.suppress(UserError):  # broken ones are named in their own section
            vectors.append(photo_vector(photos, number, embed))
            seen.append(number)
            tags.append(tag)
    found = misfiled(np.array(seen), np.array(tags), np.stack(vectors)) if seen else []
    return dataclasses.replace(report, misfiled=tuple(found[:_SHOWN]))


def evenly(examples: Mapping[int, Sequence[int]], most: int) -> list[tuple[int, int]]:
    """Up to `most` photos with their classes, as many of each class as that allows, spread over each."""
    share = max(most // max(len(examples), 1), _LEAST)
    return [(numbers[place], tag) for tag, numbers in examples.items() for place in spread(len(numbers), share)]


def photo_vector(photos: PhotoSet, number: int, embed: Embed) -> Float32[np.ndarray, " d"]:
    """What a whole photo looks like: the mean of its unit patch features, of norm 1."""
    pixels = photos.decode_image(photos.read(number))
    small = cv2.resize(pixels, (_SIDE, _SIDE), interpolation=cv2.INTER_AREA)
    patches = embed(transforms.normalise(small))[-1]
    mean = patches.reshape(-1, patches.shape[-1]).mean(0)
    return mean / np.linalg.norm(mean)


def misfiled(
    photos: Int64[np.ndarray, " n"], tags: Int64[np.ndarray, " n"], vectors: Float32[np.ndarray, "n d"]
) -> list[Misfiled]:
    """Photos that are far less like their class than its others are, and more like another; the clearest first.

    Likeness is the cosine to the mean of the class's other photos.
    """
    counts = collections.Counter(tags.tolist())
    classes = np.array(sorted(tag for tag, count in counts.items() if count >= _LEAST))
    if len(classes) < 2:
        return []
    sums = np.stack([vectors[tags == tag].sum(0) for tag in classes])
    found = []
    for place, tag in enumerate(classes):
        own = np.flatnonzero(tags == tag)
        likeness = np.stack([_cosines(vectors[i], sums - (classes == tag)[:, None] * vectors[i]) for i in own])
        to_own = likeness[:, place]
        far = to_own < to_own.mean() - _FAR * to_own.std()
        others = np.where(np.arange(len(classes)) == place, -np.inf, likeness)
        for i in np.flatnonzero(far & (others.max(1) > to_own)):
            margin = float(others[i].max() - to_own[i])
            found.append((margin, Misfiled(int(photos[own[i]]), int(tag), int(classes[others[i].argmax()]))))
    return [one for _, one in sorted(found, key=lambda pair: -pair[0])]


def _cosines(vector: Float32[np.ndarray, " d"], others: Float32[np.ndarray, "k d"]) -> Float32[np.ndarray, " k"]:
    return others @ vector / np.maximum(np.linalg.norm(others, axis=1), 1e-12)
