"""The picture of the README: the same photos as the baseline and LarvSeg segment them, and where LarvSeg looked.

    python -m benchmarks.quickstart_picture --larvseg=runs/quickstart --baseline=runs/quickstart_baseline

No photo is chosen by what comes out: for each class of --classes it is the first one in which the class is the
largest novel one.
"""

from __future__ import annotations

import argparse
from pathlib import Path

import cv2
import matplotlib

matplotlib.use("Agg")
import matplotlib.pyplot as plt
import numpy as np
from matplotlib.patches import Patch

from benchmarks.attention_on_objects import Looked, look
from larvseg_jax.cli import fail
from larvseg_jax.errors import UserError
from larvseg_jax.report import colours
from larvseg_jax.report.attention import ATTENTION

CLASSES = "fish,kite,cactus,bus,window,clock"
SIDE = 192  # of a picture, before the figure is drawn


def first_with(looked: Looked, name: str) -> int:
    """Place of the first photo whose largest novel class is `name`: that of its first attention map; or UserError."""
    for place, item in enumerate(looked.photos):
        if item.figures and item.figures[0][0] == f"{ATTENTION}{name}":
            return place
    raise UserError(f"--classes: no photo of the evaluation shows {name} as its largest novel class")


def draw(larvseg: Looked, baseline: Looked, places: list[int], out: Path) -> None:
    """Writes the PNG: one row per photo with photo, truth, baseline, LarvSeg, attention, and its classes below."""
    names, palette = larvseg.summary.names, colours.class_colours(larvseg.summary.names)
    figure, axes = plt.subplots(len(places), 5, figsize=(7.4, 1.75 * len(places)), squeeze=False)
    for row, place in zip(axes, places, strict=True):
        ours, theirs = larvseg.photos[place], baseline.photos[place]
        caption, attention = ours.figures[0]
        photo = cv2.resize(ours.image, (SIDE, SIDE), interpolation=cv2.INTER_CUBIC)
        assert ours.truth is not None, "a photo without a mask has no attention map"
        labels = ours.truth, theirs.prediction, ours.prediction
        painted = [
            colours.overlay(photo, cv2.resize(label, (SIDE, SIDE), interpolation=cv2.INTER_NEAREST), palette)
            for label in labels
        ]
        titles = "photo", "truth", "baseline", "LarvSeg", caption
        pictures = photo, *painted, colours.heat_map(photo, attention)
        for axis, title, picture in zip(row, titles, pictures, strict=True):
            axis.imshow(picture)
            axis.set_title(title, fontsize=8)
            axis.axis("off")
        columns, pixels = np.unique(np.concatenate([label.ravel() for label in labels]), return_counts=True)
        shown = [i for i in columns[np.argsort(-pixels, kind="stable")] if i < len(names)][:8]
        chips = [
            Patch(color=palette[i] / 255, label=names[i] + (" (novel)" if names[i] in larvseg.novel else ""))
            for i in shown
        ]
        row[0].legend(
            handles=chips, ncols=len(chips), fontsize=6, frameon=False, loc="upper left", bbox_to_anchor=(-0.06, 0.02),
            handlelength=1, handleheight=1, columnspacing=1,
        )  # fmt: skip
    figure.subplots_adjust(left=0.01, right=0.99, top=0.965, bottom=0.03, wspace=0.04, hspace=0.3)
    figure.savefig(out, dpi=96, metadata={"Software": None}, pil_kwargs={"optimize": True})
    plt.close(figure)


def main() -> None:
    """Evaluates both runs and writes the picture."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--larvseg", type=Path, required=True, help="folder of the run with attention")
    parser.add_argument("--baseline", type=Path, required=True, help="folder of the run without")
    parser.add_argument("--classes", default=CLASSES, help="novel classes, one photo for each")
    parser.add_argument("--data_root", help="where the data is, if not where the configs say")
    parser.add_argument("--out", type=Path, default=Path("docs/quickstart.png"))
    given = parser.parse_args()
    try:
        larvseg, baseline = (look(run, data_root=given.data_root) for run in (given.larvseg, given.baseline))
        if larvseg.summary.names != baseline.summary.names or len(larvseg.photos) != len(baseline.photos):
            raise UserError(f"{given.baseline} was evaluated on other photos or classes: give runs of the same data")
        draw(larvseg, baseline, [first_with(larvseg, name) for name in given.classes.split(",")], given.out)
    except UserError as error:
        fail(error)
    print(given.out)


if __name__ == "__main__":
    main()
