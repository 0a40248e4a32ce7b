"""Which classes are shared, base and novel; which release of ImageNet-21K there is."""

from __future__ import annotations

import itertools
from typing import Any

import numpy as np

from larvseg_jax.config import Experiment
from larvseg_jax.console import first_few
from larvseg_jax.doctor.findings import Finding, Level, Section
from larvseg_jax.doctor.set_report import SetReport
from larvseg_jax.errors import UserError
from larvseg_jax.vocabulary import OTHER, Vocabulary
from larvseg_jax.vocabulary.class_lists import class_list
from larvseg_jax.vocabulary.hierarchy import wordnet

_FEW = 300  # classes that are compared with each other by name


def imagenet_section(reports: tuple[SetReport, ...]) -> Section:
    """Which release of ImageNet-21K the prepared sets are, and which synsets they lack."""
    findings: list[Finding] = []
    facts: dict[str, Any] = {}
    for report in reports:
        key = report.source.tfds.partition("/")[0]
        if not key.startswith(("imagenet_21k", "imagenet21k")):
            continue
        if report.photos is None:
            findings.append(Finding("note", report.where, f"{key} is not there, so its release is not known"))
            continue
        metadata = report.photos.metadata
        release, missing = metadata.get("release"), metadata.get("missing_synsets") or []
        facts[report.where] = {
            name: metadata.get(name)
            for name in ("release", "closest_release", "missing_synsets", "missing_from_release", "unknown_synsets")
        }
        if not release:
            text = f"{report.photos.directory}/metadata.json names no release: prepare the data set anew to know"
            findings.append(Finding("note", report.where, text))
            continue
        closest = metadata.get("closest_release")
        text = f"release {release}" + (f", closest to {closest}" if closest else "")
        if missing:
            text += f"; without photos for {len(missing):,} of the {len(report.photos.names):,} synsets of {key}"
            findings.append(Finding("warning", report.where, text, tuple(_titled(key, missing))))
        else:
            findings.append(Finding("ok", report.where, f"{text}, with all {len(report.photos.names):,} synsets"))
    if not findings:
        findings.append(Finding("ok", "ImageNet", "this config uses none"))
    return Section("ImageNet-21K", tuple(findings), facts)


def _titled(key: str, synsets: list[str]) -> list[str]:
    """Synsets with their first lemma."""
    try:
        classes = class_list(key)
        title = dict(zip(classes.ids, classes.titles, strict=True))
    except UserError:
        title = {}
    return [f"{synset} {title.get(synset, '')}".strip() for synset in synsets]


def classes_section(run: Experiment) -> Section:
    """Rows shared by the class lists, base and novel classes of the vocabulary and of every other definition."""
    words = run.vocabulary
    text = f"{len(words.classes):,} classes: {len(words.base):,} base, {len(words.novel):,} novel"
    text += f", background {words.background!r}" if words.background else ""
    text += f", {len(words.ignore_in_eval)} left out of the means" if words.ignore_in_eval else ""
    findings = [Finding("ok", "vocabulary", text)]
    facts: dict[str, Any] = {"classes": len(words.classes), "base": len(words.base), "novel": len(words.novel)}
    findings += _named_twice(words, facts)
    findings += _union(run, facts)
    findings += _knowers(run, facts)
    facts["evals"] = {name: {} for name in run.evals}
    for name in run.evals:
        findings += _competitors(run, name, facts["evals"][name])
    return Section("shared and novel classes", tuple(findings), facts)


def _named_twice(words: Vocabulary, facts: dict[str, Any]) -> list[Finding]:
    """Classes whose names differ in spelling only, in a plural, or are two words for one thing."""
    if len(words.classes) > _FEW:
        return []
    names = [name for name in words.classes if name not in (words.background, *words.ignore_in_eval)]
    names += [name for name in words.ignore_in_eval if name in words.novel]
    findings = []
    facts["named_twice"] = pairs = []
    for first, second in itertools.combinations(names, 2):
        alike = _singular(first) == _singular(second)
        if not alike and not _one_synset(first, second):
            continue
        pairs.append([first, second])
        why = "are spelt alike" if alike else "are two words for one thing in WordNet"
        remedy = "if they are one class, give them one name: each is taught that the other's pixels are not it"
        findings.append(Finding("warning", "vocabulary", f"{first!r} and {second!r} {why}: {remedy}"))
    return findings


def _singular(name: str) -> str:
    """A name without case, blanks, signs and the plural's ending."""
    plain = "".join(c for c in name.casefold() if c.isalnum())
    for ending, instead in (("ies", "y"), ("es", ""), ("s", "")):
        if plain.endswith(ending) and len(plain) > len(ending) + 2:
            return plain.removesuffix(ending) + instead
    return plain


def _one_synset(first: str, second: str) -> bool:
    """Whether the most frequent meaning of both words is the same."""
    senses = [wordnet().senses(name) for name in (first, second)]
    return all(senses) and senses[0][0] == senses[1][0]


def _competitors(run: Experiment, name: str, facts: dict[str, Any]) -> list[Finding]:
    """The classes that compete in an evaluation, base and novel by each definition."""
    config, where = run.evals[name], f"evals.{name}"
    label_set = run.catalogue.label_set(config, evaluation=True)
    groups = run.vocabulary.groups(label_set.names)
    base, novel = groups.count("base"), groups.count("novel")
    text = f"{np.count_nonzero(label_set.multiplicity):,} classes compete: {base:,} base, {novel:,} novel"
    if label_set.rivals:
        text += f"; the {label_set.rivals:,} of {config.rivals} that are not scored count as {OTHER!r}"
    findings = [Finding("ok" if base and novel else "note", where, text)]
    facts |= {"classes": len(label_set), "base": base, "novel": novel, "base_novel": {}}
    found = run.catalogue.definitions(config.class_list, config.base_novel)
    for definition, split in zip(config.base_novel, found, strict=True):
        text = f"definition {definition!r}: {split.label} base and novel classes"
        findings.append(Finding("ok", f"{where}.base_novel", text))
        facts["base_novel"][definition] = split.label
    return findings


def _union(run: Experiment, facts: dict[str, Any]) -> list[Finding]:
    """What the class lists share."""
    if run.catalogue.shared is None:
        return []
    findings = []
    facts["rows"] = {key: len(set(names)) for key, names in run.catalogue.shared.names.items()}
    for key, names in run.catalogue.shared.names.items():
        findings.append(Finding("ok", key, f"{len(names):,} classes on {len(set(names)):,} rows"))
    facts["shared"] = {}
    for first, second in itertools.combinations(run.catalogue.shared.names, 2):
        shared = run.catalogue.shared.shared(first, second)
        facts["shared"][f"{first} and {second}"] = list(shared)
        level: Level = "ok" if shared else "note"
        text = f"share {len(shared):,} rows: {first_few(shared)}"
        findings.append(Finding(level, f"{first} and {second}", text))
    ambiguous = run.catalogue.shared.ambiguous
    facts["ambiguous"] = list(ambiguous)
    if ambiguous:
        text = f"{len(ambiguous):,} titles stay apart, because several classes bear them: {first_few(ambiguous)}"
        findings.append(Finding("note", "class_lists", text))
    return findings


def _knowers(run: Experiment, facts: dict[str, Any]) -> list[Finding]:
    """How many base and novel classes every stream knows, and the classes that nobody teaches."""
    findings, taught = [], set()
    for name, stream in run.streams.items():
        if stream.view.reads == "captions":
            taught |= set(run.vocabulary.classes)  # which of them captions name, nobody knows
            findings.append(Finding("ok", f"streams.{name}", "learns from captions: no columns"))
            continue
        label_set = run.catalogue.label_set(stream)
        rows = [run.vocabulary.classes[row] for row in label_set.rows]
        taught |= set(rows)
        groups = run.vocabulary.groups(rows)
        counts = f"{groups.count('base'):,} base, {groups.count('novel'):,} novel"
        if stream.view.labels_pixels and "novel" in groups:
            novel = [row for row, group in zip(rows, groups, strict=True) if group == "novel"]
            text = f"masks teach novel classes: {first_few(novel)}: take them out of the stream's classes"
            findings.append(Finding("warning", f"streams.{name}", text))
        findings.append(Finding("ok", f"streams.{name}", f"{len(label_set):,} columns ({counts})"))
    untaught = [c for c in (*run.vocabulary.base, *run.vocabulary.novel) if c not in taught]
    facts["untaught"] = untaught
    if untaught:
        text = f"no stream knows {len(untaught):,} base or novel classes: {first_few(untaught)}"
        findings.append(Finding("warning", "vocabulary", text))
    return findings
