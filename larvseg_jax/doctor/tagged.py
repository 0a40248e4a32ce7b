"""Photos with tags beside photos with masks: do the tags say all that the photos show?"""

from __future__ import annotations

import contextlib

import cv2
import numpy as np
from jaxtyping import Float32

from larvseg_jax.config import Experiment
from larvseg_jax.doctor.findings import Finding, Section
from larvseg_jax.doctor.photo_sets import PhotoSet
from larvseg_jax.doctor.scan import in_threads, spread
from larvseg_jax.doctor.set_report import SetReport
from larvseg_jax.errors import UserError

_PHOTOS = 64  # of each set
_SIDE = 12  # of a thumbnail, pixels
_ALIKE = 1.5  # as near to a masked photo as these are to each other, times this
_CLASSES = 3.0  # that a masked photo shows on average


def tagged_section(run: Experiment, reports: tuple[SetReport, ...]) -> Section:
    """Whether tagged photos look like masked scenes and yet carry one tag each."""
    masked = [r for r in reports if r.where.startswith("streams.") and r.view is not None and r.view.reads == "masks"]
    tagged = [r for r in reports if r.where.startswith("streams.") and r.view is not None and r.view.reads == "tags"]
    findings, facts = [], {}
    scenes = next((r for r in masked if r.photos is not None and not _reads_tags(run, r)), None)
    for report in tagged if scenes is not None else ():
        assert scenes is not None
        finding, facts[report.where] = _compared(run, report, scenes)
        findings.append(finding)
    for report in tagged:
        findings += _misfiled(report)
    nothing = Finding("ok", "tags", "there are not both photos with masks and photos with tags")
    return Section("tags of photos", tuple(findings or [nothing]), facts)


def _misfiled(report: SetReport) -> list[Finding]:
    """The photos that look like another class, in one line."""
    if not report.misfiled:
        return []
    assert report.photos is not None
    names = report.photos.names
    cases = tuple(
        f"{report.photos.read(one.photo).id} ({names[one.tag]}) looks more like {names[one.looks_like]}"
        for one in report.misfiled
    )
    text = f"photos that look like another class, by the pretrained network: {len(cases)}; see the sheet"
    return [Finding("note", report.where, text, cases)]


def _reads_tags(run: Experiment, report: SetReport) -> bool:
    """Whether a stream takes tags from its masks."""
    return not run.streams[report.where.partition(".")[2]].view.labels_pixels


def _compared(run: Experiment, tagged: SetReport, masked: SetReport) -> tuple[Finding, dict[str, float]]:
    """What to say of a tagged stream beside a masked one."""
    assert tagged.photos is not None
    assert masked.photos is not None
    shown, named = _things(run, masked), _things(run, tagged)
    nearness = likeness(thumbnails(tagged.photos), thumbnails(masked.photos))
    facts = {"classes_of_a_masked_photo": shown, "tags_of_a_photo": named, "distance": nearness}
    if named > 1 or shown < _CLASSES or not nearness <= _ALIKE:
        return Finding(
            "ok", tagged.where, f"{named:.1f} tags a photo; photos with masks show {shown:.1f} classes"
        ), facts
    text = (
        f"its photos look like those of {masked.where}, which show {shown:.1f} classes each, and have 1 tag: all that "
        "a photo shows is then learnt as its tag. Name everything in it, or crop it to the object (docs/own_data.md, "
        "several tags)"
    )
    return Finding("warning", tagged.where, text), facts


def _things(run: Experiment, report: SetReport) -> float:
    """Classes of the vocabulary on a photo, the background left out."""
    assert report.photos is not None
    assert report.scan is not None
    counted = sum(
        photos
        for i, photos in report.scan.photos_per_class.items()
        if report.photos.names[i] in run.vocabulary.classes and report.photos.names[i] != run.vocabulary.background
    )
    return counted / max(report.scan.looked_at, 1)


def thumbnails(photos: PhotoSet) -> Float32[np.ndarray, "n d"]:
    """Some photos of a set, spread evenly, very small; those that cannot be read are left out."""

    def small(index: int) -> np.ndarray | None:
        with contextlib.suppress(UserError):
            pixels = photos.decode_image(photos.read(index))
            return cv2.resize(pixels, (_SIDE, _SIDE), interpolation=cv2.INTER_AREA).astype(np.float32).ravel()
        return None

    found = [one for one in in_threads(small, spread(photos.count, _PHOTOS)) if one is not None]
    return np.stack(found) if found else np.zeros((0, 3 * _SIDE**2), np.float32)


def likeness(photos: Float32[np.ndarray, "n d"], others: Float32[np.ndarray, "m d"]) -> float:
    """How far photos are from the nearest of the others, over how far these are from each other; medians.

    NaN where there are too few.
    """
    if not len(photos) or len(others) < 3:
        return float("nan")
    among = np.linalg.norm(others[:, None] - others[None], axis=-1)
    np.fill_diagonal(among, np.inf)
    usual = float(np.median(among.min(1)))
    distance = float(np.median(np.linalg.norm(photos[:, None] - others[None], axis=-1).min(1)))
    return distance / usual if usual else float("nan")
