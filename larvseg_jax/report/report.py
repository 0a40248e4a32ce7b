"""report.html: one file, no network, that shows what a run did, for people who look rather than read."""

from __future__ import annotations

import dataclasses
import datetime
import json
import math
import os
import pathlib
import platform
from collections.abc import Mapping, Sequence
from typing import Any

import jax
import numpy as np
from jaxtyping import UInt8

from larvseg_jax.console import speed_facts
from larvseg_jax.disk import write_text
from larvseg_jax.evaluation.metrics import Summary
from larvseg_jax.provenance import processor, versions
from larvseg_jax.report import colours
from larvseg_jax.report.attention import OnPhoto
from larvseg_jax.report.cards import GalleryItem, legend, photo_card
from larvseg_jax.report.curves import GROUP_COLOURS, History, draw_curves
from larvseg_jax.report.html import data_url, templates
from larvseg_jax.report.metric_log import typical_speed

_CONFUSED = 12  # pairs of classes


@dataclasses.dataclass(frozen=True)
class EvaluationReport:
    """One evaluation.

    Attributes:
      name: in the config.
      summary: its scores.
      galleries: photos with what was predicted, by what they are chosen for.
      warnings: what goes wrong, a line each.
      attention: of novel classes: how many photos there are of each, and where the attention lies on them.
    """

    name: str
    summary: Summary
    galleries: Mapping[str, Sequence[GalleryItem]]
    warnings: Sequence[str] = ()
    attention: Mapping[str, tuple[int, OnPhoto]] = dataclasses.field(default_factory=dict)


def write_report(
    workdir: str | os.PathLike[str],
    *,
    title: str,
    evaluations: Sequence[EvaluationReport],
    history: History,
    facts: Mapping[str, str],
    config: Mapping[str, Any],
    timings: Mapping[str, float],
) -> pathlib.Path:
    """Writes workdir/report.html and returns its path.

    Args:
      workdir: run directory.
      title: name of the run.
      evaluations: the last ones, in the order of the config.
      history: lines of metrics.jsonl (metric_log.read_history).
      facts: shown in the header, in this order (command, steps, seed, ...); followed by `machine_facts`.
      config: the run's settings; anything JSON can hold, other things as text.
      timings: seconds of each stage.
    """
    page = (
        templates(pathlib.Path(__file__).parent)
        .get_template("report.html.j2")
        .render(
            title=title,
            facts={**facts, **machine_facts()},
            evaluations=[_evaluation(part) for part in evaluations],
            curves=[(caption, data_url("png", png)) for caption, png in draw_curves(history)],
            speed=speed_facts(typical_speed(history)),
            timings=_timings(timings),
            config=json.dumps(dict(config), indent=2, default=str, ensure_ascii=False),
            group_colours=GROUP_COLOURS,
        )
    )
    path = pathlib.Path(workdir) / "report.html"
    write_text(path, page, "make room; the same command writes it")
    return path


def machine_facts() -> dict[str, str]:
    """Devices, processor, versions, commit of the code and the time."""
    devices = jax.devices()
    found = versions()
    commit = found.pop("commit")
    packages = [f"{name} {version}" for name, version in found.items()]
    return {
        "devices": f"{len(devices)} × {devices[0].device_kind} ({devices[0].platform})",
        "processor": processor(),
        "versions": ", ".join([f"Python {platform.python_version()}", *packages]),
        "commit": commit,
        "written": datetime.datetime.now(datetime.UTC).strftime("%Y-%m-%d %H:%M UTC"),
    }


def _evaluation(part: EvaluationReport) -> dict[str, Any]:
    """What the page shows of one evaluation."""
    summary, palette = part.summary, colours.class_colours(part.summary.names)
    return dict(
        name=part.name,
        warnings=part.warnings,
        scores=_scores(summary),
        galleries={
            title: [photo_card(item, summary, palette) for item in items] for title, items in part.galleries.items()
        },
        legend=legend([item for items in part.galleries.values() for item in items], summary, palette),
        attention=part.attention,
        confused=_confused(summary),
        classes=_class_rows(summary, palette),
        absent=summary.absent,
        has_background="background" in summary.groups,
        has_ignored="ignored" in summary.groups,
    )


def _scores(summary: Summary) -> list[dict[str, Any]]:
    """The tiles at the top; how many classes each mean is over."""
    defined = ~np.isnan(summary.iou)
    groups = np.array(summary.groups)
    in_means = defined & ~np.isin(groups, ["background", "ignored"])

    def tile(name: str, value: float, note: str, group: str = "") -> dict[str, Any]:
        return dict(name=name, value=value, note=note, group=group)

    def over(chosen: np.ndarray) -> str:
        return f"mean over {chosen.sum()} classes"

    tiles = [
        tile("mIoU all", summary.mean_iou, over(in_means), "all"),
        tile("mIoU base", summary.base_iou, over(in_means & (groups == "base")), "base"),
        tile("mIoU novel", summary.novel_iou, over(in_means & (groups == "novel")), "novel"),
        tile("hIoU", summary.harmonic_iou, "harmonic mean of base and novel"),
        *(
            tile(f"{group} {label}", value, "the same with other lists of base and novel classes", group)
            for label, pair in summary.base_novel_iou.items()
            for group, value in zip(("base", "novel"), pair, strict=True)
        ),
        tile("mAcc", summary.mean_acc, "mean accuracy of the classes"),
        tile("aAcc", summary.pixel_acc, "share of pixels right"),
    ]
    for group, share in (("base", summary.base_pixel_acc), ("novel", summary.novel_pixel_acc)):
        if not math.isnan(share):
            tiles.append(tile(f"aAcc {group}", share, f"share of {group} pixels right", group))
    if not math.isnan(summary.base_alone_iou):
        tiles.insert(4, tile("mIoU base alone", summary.base_alone_iou, "if no novel class competed", "base"))
    if not math.isnan(summary.base_as_novel):
        tiles.append(tile("base as novel", summary.base_as_novel, "share of base pixels that novel classes win"))
    if not math.isnan(summary.novel_as_base):
        tiles.append(tile("novel as base", summary.novel_as_base, "share of novel pixels that base classes win"))
    if "background" in summary.groups:
        tiles.append(tile("background", summary.background_iou, "IoU, in no mean", "background"))
    return tiles


def _confused(summary: Summary) -> list[dict[str, Any]]:
    """The pairs of classes that are most often taken for each other, the largest first; of ignored labels none."""
    if summary.confusion is None:
        return []
    ignored = [i for i, group in enumerate(summary.groups) if group == "ignored"]
    return [
        dict(
            label=dict(name=summary.names[one.label], group=summary.groups[one.label]),
            prediction=dict(name=summary.names[one.prediction], group=summary.groups[one.prediction]),
            pixels=one.pixels,
            share=one.pixels / max(int(summary.labelled[one.label]), 1),
        )
        for one in summary.confusion.worst(_CONFUSED, ignored)
    ]


def _class_rows(summary: Summary, palette: UInt8[np.ndarray, "n 3"]) -> list[dict[str, Any]]:
    """One row per class that was labelled or predicted, best IoU first."""
    order = np.argsort(-np.nan_to_num(summary.iou, nan=-1.0), kind="stable")
    total = max(int(summary.labelled.sum()), 1)
    return [
        dict(
            name=summary.names[i],
            group=summary.groups[i],
            colour=palette[i],
            iou=float(summary.iou[i]),
            acc=float(summary.acc[i]),
            dice=float(summary.dice[i]),
            pixels=int(summary.labelled[i]),
            photos=None if summary.photos is None else int(summary.photos[i]),
            share=float(summary.labelled[i]) / total,
        )
        for i in order
        if not np.isnan(summary.iou[i])
    ]


def _timings(timings: Mapping[str, float]) -> list[dict[str, Any]]:
    total = sum(timings.values()) or 1.0
    return [dict(name=name, seconds=s, share=s / total) for name, s in timings.items()]
