"""Curves of a run as PNG pictures: losses, scores, learning rate and speed over steps."""

from __future__ import annotations

import functools
import io
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from larvseg_jax.evaluation.vocabulary_curve import Point

History = Sequence[Mapping[str, Any]]
"""Lines of metrics.jsonl (metric_log.read_history)."""

GROUP_COLOURS = {"base": "#2463d1", "novel": "#e0651f", "all": "#1b2333", "background": "#9aa3b2"}
_LINE_COLOURS = ("#2463d1", "#e0651f", "#0f9d76", "#a23bb5", "#c2931b", "#d03a5b", "#3aa3c9", "#6b7280")
_SCORES = {
    "mIoU": ("all", GROUP_COLOURS["all"]),
    "mIoU_base": ("base", GROUP_COLOURS["base"]),
    "mIoU_novel": ("novel", GROUP_COLOURS["novel"]),
    "IoU_background": ("background", GROUP_COLOURS["background"]),
}


def draw_curves(history: History) -> list[tuple[str, bytes]]:
    """(caption, PNG) of each plot there are numbers for."""
    names = list(dict.fromkeys(line.get("name", "val") for line in history if line["kind"] == "eval"))
    plots: tuple[tuple[str, Callable[[Figure, History], bool]], ...] = (
        (f"Losses per stream, before their weights{_waiting(history)}", _draw_losses),
        *(
            (
                f"mIoU on the photos of {name}" if len(names) > 1 else "mIoU on the evaluation photos",
                functools.partial(_draw_scores, name=name),
            )
            for name in names
        ),
        ("How ready the memory is, and what is attended", _draw_ready),
        ("Learning rate and speed", _draw_rate),
    )
    drawn = []
    for caption, draw in plots:
        figure = Figure(figsize=(4.6, 3.2), layout="constrained")
        if draw(figure, history):
            png = io.BytesIO()
            figure.savefig(png, format="png", dpi=180)
            drawn.append((caption, png.getvalue()))
    return drawn


def draw_vocabularies(points: Sequence[Point]) -> bytes:
    """mIoU over the number of classes that compete, a PNG; Open mIoU beside it where there is one."""
    figure = Figure(figsize=(4.6, 3.2), layout="constrained")
    axes = figure.add_subplot()
    for label, value in (("all", "mean_iou"), ("base", "base_iou"), ("novel", "novel_iou")):
        scores = [100 * getattr(point.summary, value) for point in points]
        axes.plot([point.classes for point in points], scores, "o-", ms=3, label=label, color=GROUP_COLOURS[label])
    open_scores = [(point.classes, 100 * point.summary.open.mean_iou) for point in points if point.summary.open]
    if open_scores:
        axes.plot(*zip(*open_scores, strict=True), "s--", ms=3, label="all, Open mIoU", color=GROUP_COLOURS["all"])
    axes.set(xscale="log", xlabel="classes that compete", ylabel="mIoU, %")
    axes.set_ylim(bottom=0)
    axes.grid(alpha=0.3)
    axes.legend(frameon=False)
    png = io.BytesIO()
    figure.savefig(png, format="png", dpi=180)
    return png.getvalue()


def _waiting(history: History) -> str:
    """What a method waited for at first, whose losses are 0 until then."""
    train = [line for line in history if line["kind"] == "train"]
    notes = []
    for name in dict.fromkeys(name for line in train for name in line if name.startswith("ready/")):
        shares = {line["step"]: line[name] for line in train if name in line}
        if min(shares.values()) < 1:
            done = [step for step, share in shares.items() if share >= 1]
            when = f"ready at step {done[0]}" if done else f"{[*shares.values()][-1]:.0%} ready at the last step"
            notes.append(f"; {name.removeprefix('ready/')} {when}, losses that need it are 0 at first")
    return "".join(notes)


def smoothed(values: np.ndarray, width: int) -> np.ndarray:
    """Mean over the last `width` values, fewer at the start; (n,) -> (n,)."""
    total = np.cumsum(np.concatenate([[0.0], values]))
    last = np.arange(1, len(values) + 1)
    first = np.maximum(last - width, 0)
    return (total[last] - total[first]) / (last - first)


def _series(history: History, kind: str, name: str) -> tuple[np.ndarray, np.ndarray]:
    """Steps and values of a metric, without undefined ones."""
    points = [(line["step"], line[name]) for line in history if line["kind"] == kind and name in line]
    steps, values = np.array(points, float).reshape(-1, 2).T
    defined = np.isfinite(values)
    return steps[defined], values[defined]


def _draw_losses(figure: Figure, history: History) -> bool:
    names = dict.fromkeys(name for line in history if line["kind"] == "train" for name in line if "/L_" in name)
    axes = figure.subplots()
    for i, name in enumerate(names):
        steps, values = _series(history, "train", name)
        colour = _LINE_COLOURS[i % len(_LINE_COLOURS)]
        axes.plot(steps, values, color=colour, linewidth=0.8, alpha=0.25)
        stream, _, part = name.rpartition("/")
        smooth = smoothed(values, max(len(values) // 30, 1))
        symbol = rf"$L_\mathrm{{{part[2:]}}}$" if part[2:].isalnum() and part.isascii() else plain_text(part)
        axes.plot(steps, smooth, color=colour, linewidth=1.8, label=f"{plain_text(stream)}  {symbol}")
    finish_axes(axes, "loss")
    return bool(names)


def _draw_scores(figure: Figure, history: History, name: str) -> bool:
    """Of the evaluation `name`."""
    history = [line for line in history if line["kind"] == "eval" and line.get("name", "val") == name]
    axes = figure.subplots()
    drawn = False
    for score, (label, colour) in _SCORES.items():
        steps, values = _series(history, "eval", score)
        if len(steps):
            drawn = True
            text = f"{label}  {100 * values[-1]:.1f}"
            style = "--" if label == "background" else "-"
            axes.plot(steps, 100 * values, style, marker="o", markersize=3.5, color=colour, label=text)
    axes.set_ylim(bottom=0)
    finish_axes(axes, "IoU, %")
    return drawn


def _draw_ready(figure: Figure, history: History) -> bool:
    """Shares: of what a method waits for ("ready/bank"), and of the tags that are attended ("<stream>/attended")."""
    train = [line for line in history if line["kind"] == "train"]
    names = dict.fromkeys(
        name for line in train for name in line if name.startswith("ready/") or name.endswith("/attended")
    )
    axes = figure.subplots()
    for i, name in enumerate(names):
        steps, values = _series(history, "train", name)
        label = name.removeprefix("ready/") if name.startswith("ready/") else f"{name.rpartition('/')[0]} attended"
        axes.plot(steps, 100 * values, color=_LINE_COLOURS[i % len(_LINE_COLOURS)], label=plain_text(label))
    axes.set_ylim(0, 105)
    finish_axes(axes, "share, %")
    return bool(names)


def _draw_rate(figure: Figure, history: History) -> bool:
    upper, lower = figure.subplots(2, 1, sharex=True)
    for axes, name, label in (
        (upper, "learning_rate", "learning rate"),
        (lower, "images_per_second", "images/s"),
    ):
        steps, values = _series(history, "train", name)
        axes.plot(steps, values, color=_LINE_COLOURS[0], linewidth=1.6)
        axes.set_ylim(bottom=0)
        finish_axes(axes, label)
    upper.set_xlabel("")
    return any(line["kind"] == "train" for line in history)


def plain_text(text: str) -> str:
    """A name as text, whatever it has in it: between dollars Matplotlib reads formulas."""
    return text.replace("$", r"\$")


def finish_axes(axes: Axes, ylabel: str = "", xlabel: str = "step") -> None:
    """What all plots have in common: names of the axes, a light grid, no frame, a legend above if there is one."""
    axes.set_xlabel(xlabel, color="#5b6475", fontsize=10)
    axes.set_ylabel(ylabel, color="#5b6475", fontsize=10)
    axes.tick_params(colors="#5b6475", labelsize=9, length=0)
    axes.grid(color="#e6e9ef", linewidth=0.8)
    axes.set_axisbelow(True)
    for side in axes.spines.values():
        side.set_visible(False)
    axes.xaxis.set_major_locator(MaxNLocator(5, integer=True))
    if axes.get_legend_handles_labels()[0]:
        axes.legend(loc="lower left", bbox_to_anchor=(0, 1), ncols=2, fontsize=9, frameon=False, labelcolor="#1b2333")
