"""The page of an oracle test: its tables in Markdown, beside it the plot, and all its numbers as JSON."""

from __future__ import annotations

import dataclasses
import io
import json
import math
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from matplotlib.figure import Figure

from larvseg_jax.console import printable
from larvseg_jax.disk import write_bytes, write_text
from larvseg_jax.oracle.cosines import Drawing
from larvseg_jax.oracle.oracle import Findings, tables
from larvseg_jax.oracle.photos import Labelled
from larvseg_jax.report.curves import GROUP_COLOURS, finish_axes, plain_text
from larvseg_jax.report.markdown import markdown_table
from larvseg_jax.report.report import machine_facts
from larvseg_jax.report.statistics import estimate, percent


def write_page(found: Findings, photos: Labelled, drawing: Drawing, command: str, path: Path) -> None:
    """Writes the page, and beside it a .json and, where there are several kinds of features, a .png of its name.

    Args:
      found: what the test has found.
      photos: its photos.
      drawing: how pixels were drawn.
      command: what made it, as typed.
      path: the page, a .md file.
    """
    facts = machine_facts()
    parts = [
        "# Exploratory experiment",
        f"Made by `{printable(command)}`, commit {facts['commit']}, on {facts['processor']} ({facts['devices']}), "
        f"{facts['written']}; {facts['versions']}.",
        f"The first {photos.total} photos of {photos.called}. Pixels drawn per class and photo: {drawing.points}. "
        f"Mean IoU in percent: mean ± standard error over {drawing.repeats} draws of all pixels (seed {drawing.seed}); "
        "the photos are the same in each, so the error does not say what other photos would give. Gap: base minus "
        "novel, draw by draw.",
    ]
    for title, cells in tables(found):
        parts += [f"## {title}", markdown_table(cells)]
    if len(found.features) > 1:
        picture = path.with_suffix(".png")
        write_bytes(picture, draw_features(found))
        parts.append(f"![mean IoU by features]({picture.name})")
    parts += ["## IoU by class", markdown_table(_classes(found, photos))]
    write_text(path.with_suffix(".json"), json.dumps(_numbers(found, photos, drawing, command, facts), indent=1))
    write_text(path, "\n\n".join(parts) + "\n")


def draw_features(found: Findings) -> bytes:
    """PNG: base, novel and all classes over the kinds of features; a panel for each definition of base and novel."""
    labels, places = found.labels or ("",), range(len(found.features))
    figure = Figure(figsize=(1.2 + 4.4 * len(labels), 3.2), layout="constrained")
    panels = figure.subplots(1, len(labels), sharey=True, squeeze=False)[0]
    miou = {(s.features, s.classes): s.miou for s in found.scores if s.pixels == "all"}
    for axes, label in zip(panels, labels, strict=True):
        for group in ("base", "novel", "all"):
            classes = group if group == "all" else f"{group} {label}".rstrip()
            estimates = [estimate(miou.get((name, classes), ())) for name in found.features]
            means = [100 * of.mean for of in estimates if of is not None]
            errors = np.nan_to_num([100 * of.error for of in estimates if of is not None])
            if means:  # of every kind of features, or of none: where there are no such classes
                colour = GROUP_COLOURS[group]
                axes.errorbar(places, means, yerr=errors, fmt="o-", ms=3.5, capsize=2, color=colour, label=group)
        what = "block" if all(name.startswith("block ") for name in found.features) else "features"
        finish_axes(axes, "mIoU, %" if label == labels[0] else "", f"{what}, {label}".rstrip(", "))
        short = [plain_text(name.removeprefix("block ")) for name in found.features]
        axes.set_xticks(places, short, rotation=30 if max(map(len, short)) > 3 else 0)
        axes.set_ylim(bottom=0)
    png = io.BytesIO()
    figure.savefig(png, format="png", dpi=120)
    return png.getvalue()


def _classes(found: Findings, photos: Labelled) -> list[list[str]]:
    """Every labelled class with the features that are best for the mean over all, and the last ones."""
    everything = {s.features: np.mean(s.miou) for s in found.scores if (s.pixels, s.classes) == ("all", "all")}
    best = max(range(len(found.features)), key=lambda i: everything[found.features[i]])
    shown = dict.fromkeys((best, len(found.features) - 1))
    lines = [["class", "group", "pixels %", *(found.features[i] for i in shown)]]
    groups = photos.vocabulary.groups(photos.names)
    for column in np.argsort(-found.labelled, kind="stable").tolist():
        if found.labelled[column]:
            share = f"{100 * found.labelled[column] / found.labelled.sum():.2f}"
            lines.append([photos.names[column], groups[column], share])
            lines[-1] += [_mean(found.class_iou[i, :, column].tolist()) for i in shown]
    return lines


def _mean(values: Sequence[float]) -> str:
    of = estimate(values)
    return "–" if of is None else percent(of)


def _numbers(found: Findings, photos: Labelled, drawing: Drawing, command: str, facts: dict[str, str]) -> dict:
    """Everything, as fractions of one; what is undefined is null."""
    groups = photos.vocabulary.groups(photos.names)
    return {
        "command": command,
        **facts,
        "photos": photos.total,
        "data": photos.called,
        "drawing": dataclasses.asdict(drawing),
        "scores": [{**score._asdict(), "miou": _plain(score.miou)} for score in found.scores],
        "classes": [
            {
                "name": name,
                "group": groups[column],
                "pixels": int(found.labelled[column]),
                "iou": {of: _plain(found.class_iou[i, :, column]) for i, of in enumerate(found.features)},
            }
            for column, name in enumerate(photos.names)
        ],
    }


def _plain(values: Sequence[float] | np.ndarray) -> list[float | None]:
    return [None if math.isnan(value) else float(value) for value in values]
