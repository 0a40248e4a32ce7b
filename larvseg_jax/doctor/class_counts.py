"""How many photos and pixels of each class a run learns from."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

from larvseg_jax.config import Experiment
from larvseg_jax.console import first_few
from larvseg_jax.doctor.findings import Finding, Section
from larvseg_jax.doctor.set_report import SetReport
from larvseg_jax.vocabulary import IGNORE_LABEL

_FEW = 10  # photos of a class
_SHOWN = 400  # classes in the table of the sheet


class Count(NamedTuple):
    """A class in one set: photos that show it, and the share of the pixels in its masks (None of tags)."""

    photos: int
    pixels: float | None


class ClassCount(NamedTuple):
    """A class of the vocabulary and what each set has of it, in the order of the reports."""

    name: str
    group: str
    counts: tuple[Count, ...]


def class_counts(run: Experiment, reports: Sequence[SetReport]) -> list[ClassCount]:
    """The classes that a set can show, the rarest first: by photos in all streams together."""
    columns = [_by_row(report) for report in reports]
    words = run.vocabulary
    found = []
    for row, name in enumerate(words.classes):
        group = "novel" if name in words.novel else "base" if name in words.base else words.groups([name])[0]
        counts = tuple(of.get(row, Count(0, None)) for of in columns)
        if any(row in of for of in columns):
            found.append(ClassCount(name, group, counts))
    learnt = [place for place, report in enumerate(reports) if report.where.startswith("streams.")]
    return sorted(found, key=lambda one: sum(one.counts[place].photos for place in learnt))


def _by_row(report: SetReport) -> dict[int, Count]:
    """Row of the vocabulary -> its count, for the classes that the set knows and the stream learns."""
    if report.photos is None or report.scan is None or report.view is None:
        return {}
    total = sum(report.scan.pixels_per_class.values())
    found: dict[int, Count] = {}
    for class_id, column in enumerate(report.view.columns.tolist()):
        if column == IGNORE_LABEL:
            continue
        row = int(report.label_set.rows[column])
        before = found.get(row, Count(0, None))
        # Of names that stand twice in a class list: a photo may show both.
        photos = min(before.photos + report.scan.photos_per_class[class_id], report.scan.looked_at)
        share = report.scan.pixels_per_class[class_id] / total if total else None
        found[row] = Count(photos, share if before.pixels is None else before.pixels + (share or 0.0))
    return found


def counts_section(run: Experiment, reports: Sequence[SetReport], counts: Sequence[ClassCount]) -> Section:
    """The classes with few photos, and all counts as facts."""
    learnt = [place for place, report in enumerate(reports) if report.where.startswith("streams.")]
    photos = {one.name: sum(one.counts[place].photos for place in learnt) for one in counts}
    few = [f"{name} {number}" for name, number in photos.items() if number < _FEW]
    looked = all(report.scan is None or report.scan.complete for report in reports)
    findings = []
    if few:
        among = "" if looked else ", of those looked at (--full looks at all)"
        text = (
            f"classes with fewer than {_FEW} photos{among}: {first_few(few)}: what is learnt of them is left to chance"
        )
        findings.append(Finding("note", "classes", text))
    elif photos:
        rarest = min(photos, key=lambda name: photos[name])
        findings.append(Finding("ok", "classes", f"the rarest is {rarest!r}, in {photos[rarest]:,} photos"))
    facts = {
        report.where: {
            one.name: {"photos": one.counts[place].photos, "pixels": one.counts[place].pixels} for one in counts
        }
        for place, report in enumerate(reports)
    }
    return Section(
        "photos of each class", tuple(findings or [Finding("note", "classes", "nothing was counted")]), facts
    )


def shown(counts: Sequence[ClassCount]) -> Sequence[ClassCount]:
    """Those that the sheet has room for, the rarest first."""
    return counts[:_SHOWN]
