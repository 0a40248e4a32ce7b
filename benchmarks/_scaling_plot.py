"""The plot of benchmarks/class_scaling.py: time and memory of the losses over the number of classes."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import matplotlib.pyplot as plt

STYLE = {"direct": ("#b5442e", "s"), "100 sampled": ("#8a8a8a", "^"), "closed form": ("#1f6f8b", "o")}


def plot(found: list[dict[str, Any]], path: Path) -> None:
    """Two panels; points that were compiled and not run are hollow, and in the memory panel only."""
    figure, axes = plt.subplots(1, 2, figsize=(9, 3.6), layout="constrained")
    for axis, key, title in zip(axes, ("seconds", "temporary"), ("seconds", "temporary memory, GB"), strict=True):
        for form, (colour, marker) in STYLE.items():
            points = [(m["classes"], m[key], m["seconds"] is not None) for m in found if m["form"] == form and m[key]]
            axis.plot([n for n, _, _ in points], [y for _, y, _ in points], color=colour, label=form, zorder=1)
            for n, y, ran in points:
                axis.plot(n, y, marker, color=colour, markerfacecolor=colour if ran else "white", markersize=5)
        axis.set(xscale="log", yscale="log", xlabel="classes", title=title)
        axis.grid(alpha=0.3)
    axes[0].legend(frameon=False)
    figure.savefig(path, dpi=130)
    plt.close(figure)
