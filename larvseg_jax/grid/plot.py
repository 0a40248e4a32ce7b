"""A table of a grid as a picture: every seed a dot, the mean of each row with its standard error."""

from __future__ import annotations

import io
from collections.abc import Mapping, Sequence

from matplotlib.figure import Figure

from larvseg_jax.report.curves import GROUP_COLOURS, finish_axes, plain_text
from larvseg_jax.report.statistics import estimate

_COLOURS = {"mIoU": "all", "mIoU_base": "base", "mIoU_novel": "novel"}


def draw_table(scores: Mapping[str, Mapping[str, Sequence[float]]]) -> bytes:
    """PNG of {score: {row: its values over seeds, fractions of one}}: a panel for each score, rows from the top."""
    rows = list(next(iter(scores.values())))
    figure = Figure(figsize=(1.6 + 2.2 * len(scores), 1.1 + 0.34 * len(rows)), layout="constrained")
    panels = figure.subplots(1, len(scores), sharey=True, squeeze=False)[0]
    for axes, (score, values_of) in zip(panels, scores.items(), strict=True):
        colour = GROUP_COLOURS[_COLOURS.get(score, "all")]
        for place, row in enumerate(rows):
            found = estimate([100 * value for value in values_of[row]])
            if found is None:
                continue
            axes.plot([100 * value for value in values_of[row]], [place] * found.seeds, "o", color=colour, alpha=0.3)
            error = found.error if found.seeds > 1 else 0.0
            axes.errorbar(found.mean, place, xerr=error, fmt="|", markersize=12, capsize=3, color=colour)
        axes.set_ylim(len(rows) - 0.5, -0.5)
        axes.set_yticks(range(len(rows)), [plain_text(row) for row in rows])
        finish_axes(axes, xlabel=f"{plain_text(score)}, %")
    png = io.BytesIO()
    figure.savefig(png, format="png", dpi=150)
    return png.getvalue()
