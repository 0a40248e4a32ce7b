"""The scores of a run's last evaluations as JSON, for comparisons: scores.json in the run's folder."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

import numpy as np

from larvseg_jax.errors import UserError
from larvseg_jax.evaluation.metrics import Summary

FILE_NAME = "scores.json"


def scores_of(summary: Summary) -> dict[str, Any]:
    """The means by the names of the metric log, and IoU, accuracy and photos of each class; null where undefined."""
    photos = [None] * len(summary.names) if summary.photos is None else summary.photos.tolist()
    return {
        "means": {name: _plain(value) for name, value in summary.scalars().items()},
        "classes": {
            name: {"group": group, "IoU": _plain(iou), "accuracy": _plain(acc), "pixels": int(pixels), "photos": count}
            for name, group, iou, acc, pixels, count in zip(
                summary.names, summary.groups, summary.iou, summary.acc, summary.labelled, photos, strict=True
            )
        },
    }


def read_scores(workdir: Path) -> dict[str, Any]:
    """{"step": ..., "evals": {name: `scores_of`}} of a run; UserError if it has none."""
    path = workdir / FILE_NAME
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
        for scores in found["evals"].values():
            _ = scores["means"], {name: (one["group"], one["IoU"]) for name, one in scores["classes"].items()}
    except OSError as error:
        remedy = "it is written when a training ends; the same command as the training's writes it"
        raise UserError(f"{path} cannot be read ({error.strerror}): {remedy}") from error
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise UserError(f"{path} is no file of scores ({error}): the training's command writes it anew") from error
    return found


def _plain(value: float | np.floating) -> float | None:
    return None if math.isnan(value) else float(value)
