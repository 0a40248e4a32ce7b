"""The page of Markdown that goes with an exported model: what it is, how it was made, how well it does."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np

from larvseg_jax.console import printable
from larvseg_jax.evaluation.metrics import Summary
from larvseg_jax.report.markdown import markdown_table

FILE_NAME = "model_card.md"

_MEANS = {"mIoU": "mIoU", "mIoU_base": "mIoU base", "mIoU_novel": "mIoU novel", "hIoU": "hIoU", "aAcc": "pixels right"}


def title(file: str) -> str:
    """The first line of the card of a file."""
    return f"# Model card of {printable(file)}"


def model_card(
    file: str,
    facts: Mapping[str, str],
    use: str,
    scores: Mapping[str, tuple[str, Summary]],
    groups: Mapping[str, Sequence[str]],
    licences: Sequence[str],
    unknown: str,
) -> str:
    """The text of a card.

    Args:
      file: name of the exported file.
      facts: what is known, by name, in the order of the page.
      use: the command that predicts with it.
      scores: name of an evaluation -> what its photos are, and the scores of this very file on them.
      groups: "base", "novel", ... -> names of classes.
      licences: lines on the terms of use, as they were given.
      unknown: what stands where nothing is known.
    """
    parts = [title(file), markdown_table([["", ""], *([name, fact] for name, fact in facts.items())])]
    parts += ["## Use", f"    {printable(use)}", "## Licence"]
    parts.append("\n".join(f"- {printable(line)}" for line in licences) or f"{unknown}")
    parts.append("## Scores")
    if not scores:
        parts.append(unknown)
    for name, (photos, summary) in scores.items():
        parts += [f"### {printable(name)}", f"{printable(photos)}. In percent.", _means(summary), _classes(summary)]
        if summary.absent:
            parts.append(f"Neither labelled nor predicted: {', '.join(map(printable, summary.absent))}.")
    parts.append("## Classes")
    parts += [
        f"{group} ({len(names)}): {', '.join(map(printable, names)) or 'none'}" for group, names in groups.items()
    ]
    return "\n\n".join(parts) + "\n"


def _means(summary: Summary) -> str:
    found = summary.scalars()
    return markdown_table([list(_MEANS.values()), [_percent(found[name]) for name in _MEANS]])


def _classes(summary: Summary) -> str:
    """Of every class that was labelled or predicted, by group and then the best first."""
    lines = [["class", "group", "IoU", "accuracy", "labelled pixels"]]
    order = np.lexsort((-np.nan_to_num(summary.iou, nan=-1.0), np.array(summary.groups, str)))
    for i in order:
        if not np.isnan(summary.iou[i]):
            scores = [_percent(float(x[i])) for x in (summary.iou, summary.acc)]
            lines.append([summary.names[i], summary.groups[i] or "other", *scores, f"{summary.labelled[i]:,}"])
    return markdown_table(lines)


def _percent(value: float) -> str:
    return "–" if np.isnan(value) else f"{100 * value:.2f}"
