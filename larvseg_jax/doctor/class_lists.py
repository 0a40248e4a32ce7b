"""How the class list of a data folder was understood: names that name no class, lines with values or colours."""

from __future__ import annotations

from collections.abc import Iterable

from data_pipelines.folder_classes import FolderClasses
from data_pipelines.special_names import usual_meaning
from larvseg_jax.doctor.findings import Finding, Level
from larvseg_jax.vocabulary import Vocabulary

_PLAIN = {"background": "the background", "unlabelled": "ignored"}  # as docs/own_data.md has them


def class_list_findings(vocabulary: Vocabulary, lists: Iterable[FolderClasses | None]) -> list[Finding]:
    """A line for each list that is more than names, and for each name in it that names no class; no list twice."""
    findings = []
    for classes in {c.file: c for c in lists if c is not None}.values():
        where = classes.file.name
        if classes.reading:
            findings.append(Finding("warning", where, f"{classes.reading}: is it meant so?"))
        for name in dict.fromkeys(classes.names):
            if usual_meaning(name) is None:
                continue
            learnt = name in vocabulary.classes and name != vocabulary.background
            taken = (
                "the background" if name == vocabulary.background else "learnt like any class" if learnt else "ignored"
            )
            question = "" if _PLAIN.get(name) == taken else ": is it meant so?"
            level: Level = "warning" if question else "ok"
            findings.append(Finding(level, where, f"{classes.file}: {name!r} is {taken}{question}"))
    return findings
