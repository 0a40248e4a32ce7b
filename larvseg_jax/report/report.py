"""report.html: one file, no network, that shows what a run did, for people who look rather than read."""

from __future__ import annotations

import dataclasses
import datetime
import json
import os
import pathlib
import platform
from collections.abc import Mapping, Sequence
from typing import Any

import cv2
import jax
import numpy as np
from jaxtyping import Float, Int32, UInt8

from larvseg_jax.console import speed_facts
from larvseg_jax.disk import write_text
from larvseg_jax.evaluation.metrics import Summary
from larvseg_jax.provenance import processor, versions
from larvseg_jax.report import colours
from larvseg_jax.report.curves import GROUP_COLOURS, History, draw_curves
from larvseg_jax.report.html import data_url, jpeg_url, templates
from larvseg_jax.report.metric_log import typical_speed
from larvseg_jax.vocabulary import IGNORE_LABEL

_PICTURE_SIDE = 360  # longest side of a gallery picture, pixels
_CHIPS = 10  # classes named under a photo


@dataclasses.dataclass(frozen=True)
class GalleryItem:
    """One photo of the report.

    Attributes:
      id: of the photo.
      image: RGB.
      prediction: columns of the summary's names.
      truth: the same, IGNORE_LABEL where unlabelled; None if the photo has no mask.
      figures: caption and map in [0, 1], of any size.
    """

    id: str
    image: UInt8[np.ndarray, "h w 3"]
    prediction: Int32[np.ndarray, "h w"]
    truth: Int32[np.ndarray, "h w"] | None = None
    figures: tuple[tuple[str, Float[np.ndarray, "p q"]], ...] = ()


@dataclasses.dataclass(frozen=True)
class EvaluationReport:
    """One evaluation: its name in the config, its scores, photos with what was predicted, and what goes wrong."""

    name: str
    summary: Summary
    gallery: Sequence[GalleryItem]
    warnings: Sequence[str] = ()


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
        photos=[_photo(item, summary, palette) for item in part.gallery],
        legend=_legend(part.gallery, summary, palette),
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
    if "background" in summary.groups:
        tiles.append(tile("background", summary.background_iou, "IoU, in no mean", "background"))
    return tiles


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
            share=float(summary.labelled[i]) / total,
        )
        for i in order
        if not np.isnan(summary.iou[i])
    ]


def _photo(item: GalleryItem, summary: Summary, palette: UInt8[np.ndarray, "n 3"]) -> dict[str, Any]:
    """The pictures of one photo, and the classes it shows with their colours."""
    shape = _shown_shape(item.image.shape[0], item.image.shape[1])
    image = cv2.resize(item.image, shape[::-1], interpolation=cv2.INTER_AREA)
    clear = summary.groups.index("background") if "background" in summary.groups else IGNORE_LABEL

    def picture(caption: str, pixels: np.ndarray) -> dict[str, str]:
        return dict(caption=caption, url=jpeg_url(pixels))

    def painted(label: np.ndarray) -> np.ndarray:
        small = cv2.resize(label, shape[::-1], interpolation=cv2.INTER_NEAREST)
        return colours.overlay(image, small, palette, clear)

    pictures = [picture("photo", image)]
    right = None
    if item.truth is not None:
        pictures.append(picture("truth", painted(item.truth)))
        labelled = item.truth != IGNORE_LABEL
        right = float((item.prediction == item.truth)[labelled].mean()) if labelled.any() else None
    pictures.append(picture("prediction", painted(item.prediction)))
    for caption, figure in item.figures:
        pictures.append(picture(caption, colours.heat_map(image, figure)))
    shown = _classes_shown(item)[:_CHIPS]
    return dict(
        id=item.id,
        right=right,
        pictures=pictures,
        chips=[dict(name=summary.names[i], group=summary.groups[i], colour=palette[i]) for i in shown if i != clear],
    )


def _classes_shown(item: GalleryItem) -> list[int]:
    """Columns in the truth or the prediction of a photo, the largest first."""
    maps = [item.prediction] if item.truth is None else [item.truth, item.prediction]
    columns, pixels = np.unique(np.concatenate([m.ravel() for m in maps]), return_counts=True)
    order = np.argsort(-pixels, kind="stable")
    return [int(c) for c in columns[order] if c != IGNORE_LABEL]


def _legend(
    gallery: Sequence[GalleryItem], summary: Summary, palette: UInt8[np.ndarray, "n 3"]
) -> list[dict[str, Any]]:
    """Every class that the gallery shows, in the order of the label set."""
    columns = sorted({i for item in gallery for i in _classes_shown(item)})
    return [
        dict(name=summary.names[i], group=summary.groups[i], colour=palette[i])
        for i in columns
        if summary.groups[i] != "background"
    ]


def _timings(timings: Mapping[str, float]) -> list[dict[str, Any]]:
    total = sum(timings.values()) or 1.0
    return [dict(name=name, seconds=s, share=s / total) for name, s in timings.items()]


def _shown_shape(height: int, width: int) -> tuple[int, int]:
    factor = min(_PICTURE_SIDE / max(height, width), 2.0)
    return max(round(height * factor), 1), max(round(width * factor), 1)
