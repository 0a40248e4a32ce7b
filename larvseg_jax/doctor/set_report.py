"""The photos of every stream and evaluation, opened as training would and looked at: what all sections speak of."""

from __future__ import annotations

import dataclasses
from typing import NamedTuple

import numpy as np

from data_pipelines.examples import Reads
from data_pipelines.faults import Fault
from data_pipelines.sources import SourceConfig, open_source
from data_pipelines.streams import Stream, open_stream
from larvseg_jax.config import Experiment
from larvseg_jax.doctor.photo_sets import PhotoSet, open_photo_set
from larvseg_jax.doctor.scan import Scan, View, scan
from larvseg_jax.errors import UserError
from larvseg_jax.vocabulary import IGNORE_LABEL, LabelSet


class Misfiled(NamedTuple):
    """A photo that is far from its class and nearer to another; class ids of its set."""

    photo: int
    tag: int
    looks_like: int


@dataclasses.dataclass(frozen=True)
class SetReport:
    """All that was found out about the photos of a stream or of the evaluation.

    Attributes:
      where: "streams.<name>" or "evals.<name>".
      source: what the config says.
      label_set: the classes it knows.
      photos: the photos as stored; None if there is nothing to look at.
      stream: what training would read; None for the evaluation, or if it cannot be opened.
      refusal: why training cannot open it, "" if it can.
      faults: all that is wrong where there is nothing to look at.
      view: how it sees the data set's classes.
      scan: what the photos looked at show.
      misfiled: tagged photos that look like another class (misfiled.py).
    """

    where: str
    source: SourceConfig
    label_set: LabelSet
    photos: PhotoSet | None = None
    stream: Stream | None = None
    refusal: str = ""
    faults: tuple[Fault, ...] = ()
    view: View | None = None
    scan: Scan | None = None
    misfiled: tuple[Misfiled, ...] = ()


def inspect(run: Experiment, most: int | None) -> tuple[SetReport, ...]:
    """Opens and looks at the data of every stream and of every evaluation: `most` photos of each, None for all."""
    reports = [_of_stream(run, name, most) for name in run.streams]
    return (*reports, *(_of_evaluation(run, name, most) for name in run.evals))


def _of_stream(run: Experiment, name: str, most: int | None) -> SetReport:
    stream = run.streams[name]
    report = SetReport(f"streams.{name}", stream.source, run.catalogue.label_set(stream))
    try:
        opened = open_stream(stream, run.data_root, report.label_set, run.max_megapixels)
        report = dataclasses.replace(report, stream=opened)
    except UserError as error:
        report = dataclasses.replace(report, refusal=str(error))
    always = tuple(report.label_set.column(c) for c in stream.view.always_tags)
    always = tuple(c for c in always if c != IGNORE_LABEL)
    return _looked_at(run, report, stream.view.reads, stream.view.max_labels, always, most)


def _of_evaluation(run: Experiment, name: str, most: int | None) -> SetReport:
    config = run.evals[name]
    report = SetReport(f"evals.{name}", config.source, run.catalogue.label_set(config, evaluation=True))
    try:
        open_source(config.source, run.data_root, report.label_set, "masks")
    except UserError as error:
        report = dataclasses.replace(report, refusal=str(error))
    return _looked_at(run, report, "masks", None, (), most)


def _looked_at(
    run: Experiment,
    report: SetReport,
    reads: Reads,
    max_labels: int | None,
    always: tuple[int, ...],
    most: int | None,
) -> SetReport:
    try:
        photos = open_photo_set(report.source, run.data_root, report.label_set, reads)
        photos = dataclasses.replace(photos, max_megapixels=run.max_megapixels)
    except UserError as error:
        return dataclasses.replace(report, refusal=report.refusal or str(error))
    if not photos.count:
        return dataclasses.replace(report, refusal=report.refusal or "no photo to look at", faults=photos.faults)
    columns = np.array([report.label_set.column(name) for name in photos.names], np.int32)
    view = View(columns, reads, max_labels, always)
    scanned = scan(photos, view, most, f"{report.where}: photos")
    return dataclasses.replace(report, photos=photos, view=view, scan=scanned)
