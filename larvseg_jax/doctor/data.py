"""What is said of the data of a run: is it there, which release, how many photos, what is wrong with them."""

from __future__ import annotations

import collections
import itertools
from typing import Any

from data_pipelines.examples import Reads
from data_pipelines.faults import KINDS, Fault
from data_pipelines.prepared import is_prepared
from larvseg_jax.config import Experiment
from larvseg_jax.console import first_few
from larvseg_jax.doctor.class_lists import class_list_findings
from larvseg_jax.doctor.findings import Finding, Level, Section, case
from larvseg_jax.doctor.photo_sets import PhotoSet, plain_split
from larvseg_jax.doctor.scan import Scan
from larvseg_jax.doctor.set_report import SetReport
from larvseg_jax.errors import UserError
from larvseg_jax.vocabulary import IGNORE_LABEL
from larvseg_jax.vocabulary.class_lists import class_list

_OF_THE_SET = (
    "files",
    "features",
    "spare mask",
    "unlisted",
    "not downloaded",
)  # kinds of fault that no photo has by itself
_OF_PHOTOS = tuple(kind for kind in KINDS if kind not in (*_OF_THE_SET, "meaning", "unreadable"))
_NOTHING = (Finding("note", "data", "nothing to look at"),)


def found_section(run: Experiment, reports: tuple[SetReport, ...]) -> Section:
    """Where every set is, what it was prepared from, and how many photos it has."""
    findings, facts = [], {}
    for report in reports:
        if report.photos is None:
            findings += _absent(run, report)
            facts[report.where] = {"found": False, "path": str(report.source.location(run.data_root))}
            continue
        findings += _present(report, report.photos)
        metadata = report.photos.metadata
        facts[report.where] = {
            "found": True,
            "path": str(report.photos.directory),
            "kind": report.photos.kind,
            "photos": report.photos.count,
            "split": report.source.split,
            **{key: metadata[key] for key in ("class_list", "layout", "expected", "release") if key in metadata},
        }
    findings += class_list_findings(run.vocabulary, (r.photos.classes for r in reports if r.photos))
    return Section("data", tuple(findings), facts)


def _absent(run: Experiment, report: SetReport) -> list[Finding]:
    from data_pipelines.prepare import BUILDERS  # imports all builders

    directory = report.source.location(run.data_root)
    text = report.refusal
    name = report.source.tfds.partition("/")[0]
    if report.source.tfds and name in BUILDERS and not is_prepared(directory):
        begun = (directory.parent / f"{directory.name}.preparing").is_dir()
        text = f"{directory} is not there{', its preparation was interrupted' if begun else ''}: "
        command = f"python -m data_pipelines.prepare {name} --from=DIR --data_root={run.data_root}"
        text += f"{command} (DIR: the data set as downloaded), or set --config.data_root= or LARVSEG_DATA"
    details = tuple(fault.what for fault in report.faults)
    return [Finding("error", report.where, text, details if len(details) > 1 else ())]


def _present(report: SetReport, photos: PhotoSet) -> list[Finding]:
    layout = photos.metadata.get("layout")
    release = photos.metadata.get("release")
    origin = f", from {layout}" if layout else ""
    origin += f", release {release}" if release else ""
    split = f", split {report.source.split!r}" if photos.has_splits else f", {len(photos.names)} classes"
    text = f"{photos.directory}{split}: {photos.count:,} photos{origin}"
    expected = (photos.metadata.get("expected") or {}).get(plain_split(report.source.split))
    findings = []
    if expected is None or plain_split(report.source.split) != report.source.split:
        findings.append(Finding("ok", report.where, text))
    elif expected == photos.count:
        findings.append(Finding("ok", report.where, f"{text}, as published"))
    else:
        more = "more" if photos.count > expected else "fewer"
        left_out = len(_left_out(report))
        why = f" ({left_out:,} of them unreadable and left out)" if left_out and more == "fewer" else ""
        difference = f"{abs(photos.count - expected):,} {more} than the published {expected:,}{why}"
        findings.append(Finding("warning", report.where, f"{text}, {difference}"))
    findings += _class_names(report, photos)
    faults = _by_kind((*photos.faults, *(report.scan.faults if report.scan else ())))
    for kind in _OF_THE_SET:
        findings += _fault_finding(report, kind, faults.get(kind, []))
    findings += [Finding(KINDS[f.kind].level, report.where, str(f.error())) for f in faults.get("meaning", [])]
    if report.refusal and not any(KINDS[fault.kind].level == "error" for fault in photos.faults):
        findings.append(Finding("error", report.where, report.refusal))
    return findings


def _class_names(report: SetReport, photos: PhotoSet) -> list[Finding]:
    """A set prepared with another class list would lose the classes whose names have changed."""
    try:
        names = class_list(str(photos.metadata.get("class_list"))).stored
    except UserError:  # none of the public data sets
        return []
    pairs = itertools.zip_longest(photos.names, names)
    other = next(((i, was, now) for i, (was, now) in enumerate(pairs) if was != now), None)
    if other is None:
        return []
    text = f"class {other[0]} was {other[1]!r} when it was prepared and is {other[2]!r} now: prepare it anew"
    return [Finding("error", report.where, f"{photos.directory}: {text}")]


def _left_out(report: SetReport) -> list[dict[str, Any]]:
    """What the preparation could not read of this split."""
    assert report.photos is not None
    return (report.photos.metadata.get("unreadable") or {}).get(plain_split(report.source.split)) or []


def unreadable_section(reports: tuple[SetReport, ...]) -> Section:
    """Files that cannot be read: those the preparation left out, and those found now."""
    findings, facts = [], {}
    for report in reports:
        if report.photos is None or report.scan is None:
            continue
        left_out = _left_out(report)
        details = tuple(f"{one.get('file')}: {one.get('reason')}" for one in left_out)
        if left_out:
            text = f"files that the preparation could not read and left out: {len(left_out):,}"
            findings.append(Finding("warning", report.where, text, details))
        found = _by_kind(report.scan.faults).get("unreadable", [])
        findings += _fault_finding(report, "unreadable", found)
        if not found:
            findings.append(Finding("ok", report.where, f"{_looked(report.scan)}: all can be read"))
        facts[report.where] = {
            "looked_at": report.scan.looked_at,
            "of": report.scan.total,
            "left_out_when_prepared": left_out,
            "unreadable": [fault.what for fault in found],
        }
    return Section("unreadable files", tuple(findings or _NOTHING), facts)


def labels_section(reports: tuple[SetReport, ...]) -> Section:
    """Masks, tags and captions: values, sizes, empty ones, classes that are shown or not, tags against max_labels."""
    findings: list[Finding] = []
    facts: dict[str, Any] = {}
    for report in reports:
        if report.photos is None or report.scan is None or report.view is None:
            continue
        by_kind = _by_kind((*report.photos.faults, *report.scan.faults))
        shown = [kind for kind in _OF_PHOTOS if kind != "value" or "meaning" not in by_kind]  # which says it of all
        faults = [f for kind in shown for f in _fault_finding(report, kind, by_kind.get(kind, []))]
        if not faults:
            faults = [Finding("ok", report.where, f"{_looked(report.scan)}: {_fitting(report.view.reads)}")]
        findings += faults
        if report.view.reads == "captions":
            facts[report.where] = {kind: [fault.what for fault in by_kind.get(kind, [])] for kind in _OF_PHOTOS}
            continue
        classes, class_facts = _classes_shown(report)
        findings += classes
        if report.view.max_labels is not None and not by_kind.get("many tags"):
            most, photo = report.scan.most_tags
            text = f"at most {most} tags on one photo (max_labels {report.view.max_labels})"
            findings.append(Finding("ok", report.where, f"{text}: {photo!r}" if photo else text))
        facts[report.where] = {
            **{kind: [fault.what for fault in by_kind.get(kind, [])] for kind in _OF_PHOTOS},
            **class_facts,
            "most_tags": report.scan.most_tags[0],
            "max_labels": report.view.max_labels,
        }
    return Section("masks and tags", tuple(findings or _NOTHING), facts)


def _fitting(reads: Reads) -> str:
    return "each has a caption, none of them empty" if reads == "captions" else f"{reads} fit photos and class list"


def _classes_shown(report: SetReport) -> tuple[list[Finding], dict[str, Any]]:
    """Classes of the stream that no photo shows, and classes of the photos that the stream does not know."""
    assert report.photos is not None
    assert report.scan is not None
    assert report.view is not None
    whole_split = plain_split(report.source.split) == report.source.split
    counted = (report.photos.metadata.get("photos_per_class") or {}).get(report.source.split) if whole_split else None
    photos = counted or [report.scan.photos_per_class[i] for i in range(len(report.photos.names))]
    certain = bool(counted) or report.scan.complete
    shown = {int(report.view.columns[i]) for i, n in enumerate(photos) if n} | set(report.view.always_tags)
    own = report.label_set.names[: report.label_set.scored]
    missing = [name for column, name in enumerate(own) if column not in shown]
    known = report.view.columns != IGNORE_LABEL
    ignored = [name for name, n, k in zip(report.photos.names, photos, known, strict=True) if n and not k]
    findings = []
    if missing:
        level: Level = "warning" if certain and not report.where.startswith("evals.") else "note"
        whom = "no photo shows" if certain else f"none of the {report.scan.looked_at:,} photos looked at shows"
        sure = "" if certain else " (--full looks at all)"
        text = f"{whom} {len(missing):,} of its {len(own):,} classes: {first_few(missing)}{sure}"
        findings.append(Finding(level, report.where, text))
    else:
        findings.append(Finding("ok", report.where, f"every one of its {len(own):,} classes is shown"))
    if ignored:
        text = f"classes of the data that it ignores ({len(ignored):,}): {first_few(ignored)}"
        findings.append(Finding("ok", report.where, text))
    return findings, {"classes_not_shown": missing, "classes_ignored": ignored, "certain": certain}


def _by_kind(faults: tuple[Fault, ...] | list[Fault]) -> dict[str, list[Fault]]:
    kinds = collections.defaultdict(list)
    for fault in faults:
        kinds[fault.kind].append(fault)
    return dict(kinds)


def _fault_finding(report: SetReport, kind: str, faults: list[Fault]) -> list[Finding]:
    """One line for all faults of a kind, with every case in its details."""
    if not faults:
        return []
    what = KINDS[kind]
    level = what.level
    scanned = report.scan
    if kind == "contradiction" and scanned is not None and report.photos is not None:
        # The preparation derives tags from masks; of hand-made tags a few may say more than the masks do.
        level = "error" if report.photos.kind == "prepared" or 2 * len(faults) > scanned.compared else level
    if kind in ("empty", "untagged") and scanned is not None and len(faults) == scanned.looked_at:
        level = "error"
    of = f" among {_looked(scanned)}" if scanned is not None and kind not in _OF_THE_SET else ""
    text = f"{what.heading}: {len(faults):,}{of}; {what.remedy}"
    return [Finding(level, report.where, text, tuple(map(case, faults)))]


def _looked(scanned: Scan) -> str:
    if scanned.complete:
        return f"all {scanned.total:,} photos"
    return f"{scanned.looked_at:,} of {scanned.total:,} photos"
