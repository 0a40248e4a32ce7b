"""What goes wrong in a training although it runs: each as one line, with what usually helps."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
from jaxtyping import Float64

from larvseg_jax.console import first_few, printable
from larvseg_jax.evaluation.metrics import Summary

_SWALLOWED = 0.10  # of the labelled pixels, that novel classes win beyond what is labelled so
_FALLEN = 0.03  # of base mIoU, and _FALLEN_SHARE of what it was
_FALLEN_SHARE = 0.10
_COLD = 0.9  # of what a method waits for
_SETTLED = 0.5  # of the steps, after which what is missing is no longer to be expected
_SEEN = 1e-3  # of the labelled pixels: a class that is rarer may well not be predicted


class Training(NamedTuple):
    """Where a training stands.

    Attributes:
      evaluation: name of the evaluation that was made.
      step, total: steps done and to be done.
      history: lines of metrics.jsonl up to now (metric_log.read_history).
    """

    evaluation: str
    step: int
    total: int
    history: Sequence[Mapping[str, Any]]


def symptoms(summary: Summary, training: Training) -> list[str]:
    """What an evaluation and the log show to be wrong, a line each; [] if nothing."""
    return [*_swallowed(summary), *_fallen(training), *_cold(training), *_never_predicted(summary, training)]


def _shares(summary: Summary) -> tuple[Float64[np.ndarray, " n"], Float64[np.ndarray, " n"]]:
    """Of the labelled pixels, those predicted and those labelled as each class."""
    total = max(int(summary.labelled.sum()), 1)
    return summary.predicted / total, summary.labelled / total


def _swallowed(summary: Summary) -> Iterator[str]:
    """Novel classes that win far more pixels than are theirs."""
    predicted, labelled = _shares(summary)
    novel = summary.novel
    if predicted[novel].sum() - labelled[novel].sum() <= _SWALLOWED:
        return
    worst = printable(summary.names[int(np.where(novel, predicted - labelled, -1).argmax())])
    alone = summary.base_alone_iou
    base = f" (base mIoU {_percent(summary.base_iou)}"
    base += f", {_percent(alone)} without them)" if not math.isnan(alone) else ")"
    yield (
        f"classes known by tags win {_percent(predicted[novel].sum())} of the pixels and are "
        f"{_percent(labelled[novel].sum())} of them, most of all {worst!r}{base}: give tagged photos all their tags "
        "(tags.csv), lower lambda_cls and lambda_aux of the tags, or hold them back by "
        "evaluate.py --novel_offset=choose"
    )


def _fallen(training: Training) -> Iterator[str]:
    """Base mIoU that was higher at an earlier evaluation, although L_seg has improved since."""
    scores = [
        (line["step"], line["mIoU_base"])
        for line in training.history
        if line["kind"] == "eval" and line.get("name") == training.evaluation and "mIoU_base" in line
    ]
    scores = [(step, score) for step, score in scores if step <= training.step and not math.isnan(score)]
    if len(scores) < 2 or scores[-1][0] != training.step:
        return
    best_step, best = max(scores[:-1], key=lambda pair: pair[1])
    now = scores[-1][1]
    if best - now <= max(_FALLEN, _FALLEN_SHARE * best):
        return
    before, after = _seg_loss(training, best_step), _seg_loss(training, training.step)
    if not after < before:
        return
    yield (
        f"base mIoU fell from {_percent(best)} at step {best_step} to {_percent(now)} while L_seg fell from "
        f"{before:.3f} to {after:.3f}: the tags pull base classes away; lower their weight, lambda_cls or lambda_aux "
        "(the best checkpoint is kept)"
    )


def _seg_loss(training: Training, step: int) -> float:
    """L_seg of all streams with masks: the mean of what was logged in the tenth of a training before a step."""
    lines = [
        line
        for line in training.history
        if line["kind"] == "train" and step - max(training.total // 10, 1) < line["step"] <= step
    ]
    sums = [sum(value for name, value in line.items() if name.endswith("/L_seg")) for line in lines]
    return float(np.mean(sums)) if any(sums) else math.nan


def _cold(training: Training) -> Iterator[str]:
    """What a method waits for, and still does late in the training."""
    if training.step < _SETTLED * training.total:
        return
    latest: Mapping[str, Any] = next((line for line in reversed(training.history) if line["kind"] == "train"), {})
    for name, share in latest.items():
        if name.startswith("ready/") and share < _COLD:
            what = name.removeprefix("ready/")
            yield (
                f"{what} is {_percent(share)} ready at step {training.step} of {training.total}: the other classes get "
                "no attention; take more steps, larger batches of tags, or a lower warmup of the method (the doctor "
                "counts the photos of each class)"
            )


def _never_predicted(summary: Summary, training: Training) -> Iterator[str]:
    """Classes that are in the masks and win no pixel."""
    if training.step < _SETTLED * training.total:
        return
    _, labelled = _shares(summary)
    counts = ~np.isin(summary.groups, ["ignored"])
    never = np.flatnonzero((summary.predicted == 0) & (labelled >= _SEEN) & counts)
    if never.size:
        names = first_few([printable(summary.names[i]) for i in never])
        shown = int((counts & (labelled >= _SEEN)).sum())
        yield (
            f"never predicted: {never.size} of {shown} classes ({names}): have they photos enough (the doctor counts), "
            "are they tagged or masked under another name, and was the training long enough?"
        )


def _percent(share: float) -> str:
    return f"{100 * share:.1f} %"
