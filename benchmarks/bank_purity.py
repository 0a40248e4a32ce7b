"""What goes into the memory bank, and where the attention lies, at every checkpoint of a run.

    python -m benchmarks.bank_purity --run=runs/quickstart                  # all its checkpoints; --step=800 for one
    python -m benchmarks.bank_purity --run=DIR --data_root=DIR --out=FILE.png

Every photo of the first evaluation that shows a novel class is taken for one that has the class as a tag: cropped as
the run's first tagged stream crops (the same crops at every step), with the tags that the stream would give it. The
method itself chooses the K patches that the crop would write into the bank for the class (method 6.3). Then, in percent
of the pixels written, over all photos of the class:

  purity   those that lie on the class
  chance   the same if any patches had been written: the class's share of the crops' pixels
  best     the same if the K patches that show most of the class had been written: a small object does not fill K
           patches, and with the photo's own tags (tags_from="image") a crop may not show it at all

Unlabelled pixels are left out; what a crop shows beside its photo is not the class. What the attention does on these
photos is said as in benchmarks/attention_on_objects.py; a run without attention has none, and the purity that its bank
would have. A run keeps few checkpoints: --config.checkpoint.keep_last=100 in training keeps more. The table is printed,
the curves are written to bank_purity.png in the run's folder.
"""

from __future__ import annotations

import argparse
import dataclasses
import io
import itertools
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import NamedTuple

import jax
import numpy as np
from jaxtyping import Array, Float, Int, PyTree
from matplotlib.figure import Figure
from rich.table import Table

from benchmarks.attention_on_objects import Opened, look_at, open_checkpoint
from data_pipelines import transforms
from data_pipelines.crop_views import tags_in
from data_pipelines.views import MaskView, TagView
from larvseg_jax.cli import fail
from larvseg_jax.console import console, printable
from larvseg_jax.disk import write_bytes
from larvseg_jax.errors import UserError
from larvseg_jax.methods.larvseg.ca_classifier import foreground_ranking, tag_scores
from larvseg_jax.methods.larvseg.memory_bank import region_features
from larvseg_jax.methods.larvseg.method import LarvSeg
from larvseg_jax.methods.larvseg.network import segment
from larvseg_jax.report.attention import OnPhoto, by_class
from larvseg_jax.report.curves import GROUP_COLOURS, finish_axes, plain_text
from larvseg_jax.vocabulary import IGNORE_LABEL, LabelSet
from larvseg_jax.weights.places import check_model, find_run, steps_named

BATCH = 16  # crops that the network sees at a time
BESIDE = -2  # in a label: beside the photo, where the crop is larger


class Tagged(NamedTuple):
    """A photo as the tagged stream sees it: the crop's pixels and tags, and its truth in the evaluation's columns."""

    image: Float[np.ndarray, "s s 3"]
    tags: Int[np.ndarray, " l"]
    label: Int[np.ndarray, "H H"]


@dataclasses.dataclass
class Written:
    """Sums over the photos of a class, pixels of the loss grid: (on the class, all labelled ones)."""

    photos: int = 0
    chosen: np.ndarray = dataclasses.field(default_factory=lambda: np.zeros(2))
    anywhere: np.ndarray = dataclasses.field(default_factory=lambda: np.zeros(2))
    best: np.ndarray = dataclasses.field(default_factory=lambda: np.zeros(2))

    @property
    def shares(self) -> tuple[float, float, float]:
        """Purity, chance, best; nan where nothing labelled was written."""
        purity, chance, best = (on / n if n else np.nan for on, n in (self.chosen, self.anywhere, self.best))
        return purity, chance, best


class Measured(NamedTuple):
    """A novel class at one checkpoint, fractions of one; `looked` is None without attention."""

    photos: int
    purity: float
    chance: float
    best: float
    looked: OnPhoto | None
    iou: float


def tagged_view(opened: Opened) -> tuple[TagView, LabelSet]:
    """How the run's first tagged stream sees photos, and its classes. UserError if it has none."""
    for stream in opened.run.streams.values():
        if isinstance(stream.view, TagView):
            return stream.view, opened.run.catalogue.label_set(stream)
    raise UserError("the run has no tagged stream, so nothing is written into a bank: give a run of LarvSeg")


def tagged_photos(opened: Opened, view: TagView, label_set: LabelSet) -> Iterator[Tagged]:
    """The photos of the evaluation that show a novel class which the stream knows, each cropped once."""
    evaluation, novel = opened.evaluator.label_set, set(opened.run.vocabulary.novel)
    of_row = {int(row): column for column, row in enumerate(label_set.rows)}
    known = evaluation.multiplicity > 0
    stream_column = [
        of_row.get(int(row), IGNORE_LABEL) if here else IGNORE_LABEL
        for row, here in zip(evaluation.rows, known, strict=True)
    ]
    always = [label_set.column(name) for name in view.always_tags]
    # Where tags are the photo's own the stream does not look at masks, so it does not redraw crops by them either.
    options = {field.name: getattr(view, field.name) for field in dataclasses.fields(MaskView)}
    crops = MaskView(**options | ({} if view.reads == "masks" else {"category_ratio": 1.0}))
    for number in range(opened.evaluator.photos):
        photo = opened.evaluator.source[number]
        row = crops.row(photo, np.random.default_rng([opened.run.seed, number]), evaluation)
        present = tags_in(row["label"] if view.reads == "masks" else photo["label"])
        tags = {stream_column[column] for column in present} | set(always)
        tags.discard(IGNORE_LABEL)
        if not any(label_set.names[column] in novel for column in tags):
            continue
        # Novel ones first, so that they are the last to be left out.
        ordered = sorted(tags, key=lambda column: (label_set.names[column] not in novel, column))[: view.max_labels]
        padded = np.full(view.max_labels, IGNORE_LABEL, np.int32)
        padded[: len(ordered)] = ordered
        levels = np.empty(row["image"].shape, np.uint8)
        row["image"].write(levels)
        image = transforms.normalise(levels)
        height, width = row["image"].extent
        image[height:], image[:, width:] = 0, 0
        height, width = (-(-side // view.downsample_rate) for side in (height, width))
        label = row["label"].copy()
        label[height:], label[:, width:] = BESIDE, BESIDE
        yield Tagged(image, padded, label)


def patch_counts(
    label: Int[np.ndarray, "H H"], column: int, downsample: int, patch: int
) -> tuple[Int[np.ndarray, " p"], Int[np.ndarray, " p"]]:
    """For each patch of a crop: its pixels that show the class, and all that are labelled (or beside the photo)."""
    places = np.arange(len(label)) * downsample // patch
    belongs = np.eye(places[-1] + 1, dtype=np.int64)[places]
    on, counted = (belongs.T @ mask.astype(np.int64) @ belongs for mask in (label == column, label != IGNORE_LABEL))
    return on.ravel(), counted.ravel()


def add(written: Written, chosen: Int[np.ndarray, " k"], on: np.ndarray, counted: np.ndarray) -> None:
    """Adds a photo: the patches chosen, and of every patch the pixels on the class and the labelled ones."""
    best = np.argsort(-on / np.maximum(counted, 1), kind="stable")[: len(chosen)]
    written.photos += 1
    for total, patches in ((written.chosen, chosen), (written.anywhere, slice(None)), (written.best, best)):
        total += on[patches].sum(), counted[patches].sum()


def what_is_written(opened: Opened) -> dict[str, Written]:
    """Novel class -> what its photos would write into the bank.

    Raises:
      UserError: the run is of another method, has no tagged stream, or crops of fewer patches than K.
    """
    method, (view, label_set) = opened.method, tagged_view(opened)
    if not isinstance(method, LarvSeg):
        raise UserError(f"the method of this run is {type(method).__name__}, which has no bank: give a run of LarvSeg")
    ca, patch = method.config.ca_classifier, method.task.backbone.patch_size
    topk = ca.foreground_topk
    patches = (-(-view.crop_size // patch)) ** 2
    if topk > patches:
        raise UserError(f"foreground_topk is {topk}, and a crop has {patches} patches: give a run with fewer")

    @jax.jit
    def chosen(params: PyTree, images: Float[Array, "b s s 3"], tags: Int[Array, "b l"]) -> Int[Array, "b l k"]:
        features, table = segment(method.model, params, images, label_set)
        flat = features.reshape(len(images), patches, -1)
        ranking = foreground_ranking(tag_scores(flat, table, tags), tags != IGNORE_LABEL, ca)
        return region_features(flat, ranking, topk)[1]

    found: dict[str, Written] = {}
    evaluation, novel = opened.evaluator.label_set, set(opened.run.vocabulary.novel)
    column_of_row = {int(row): column for column, row in enumerate(evaluation.rows) if evaluation.multiplicity[column]}
    photos = tagged_photos(opened, view, label_set)
    for batch in iter(lambda: list(itertools.islice(photos, BATCH)), []):
        filled = [*batch, *[batch[0]] * (BATCH - len(batch))]  # one shape, compiled once
        images, tags = (np.stack(arrays) for arrays in list(zip(*filled, strict=True))[:2])
        places = np.asarray(chosen(opened.params, images, tags))
        for photo, of_photo in zip(batch, places, strict=False):
            for tag, of_tag in zip(photo.tags, of_photo, strict=True):
                column = column_of_row.get(int(label_set.rows[tag])) if tag != IGNORE_LABEL else None
                if column is not None and evaluation.names[column] in novel:
                    counts = patch_counts(photo.label, column, view.downsample_rate, patch)
                    add(found.setdefault(evaluation.names[column], Written()), of_tag, *counts)
    return dict(sorted(found.items()))


def measure(folder: Path, step: int, data_root: str | None = None) -> dict[str, Measured]:
    """The novel classes at one checkpoint; UserError as `open_checkpoint` and `what_is_written`."""
    opened = open_checkpoint(folder, step, data_root)
    written = what_is_written(opened)
    looked = look_at(opened)
    names = looked.summary.names
    attention = {name: on for name, (_, on) in by_class(looked.photos, names, looked.novel).items()}
    return {
        name: Measured(of.photos, *of.shares, attention.get(name), float(looked.summary.iou[names.index(name)]))
        for name, of in written.items()
    }


def means(classes: Mapping[str, Measured]) -> Measured:
    """The means over the classes, those without a value left out."""
    purity, chance, best = (float(np.nanmean(x)) for x in zip(*(of[1:4] for of in classes.values()), strict=True))
    looked = [of.looked for of in classes.values() if of.looked is not None]
    attention = OnPhoto(*np.mean(looked, 0).tolist()) if looked else None
    iou = float(np.nanmean([of.iou for of in classes.values()]))
    return Measured(sum(of.photos for of in classes.values()), purity, chance, best, attention, iou)


def tables(steps: Mapping[int, Mapping[str, Measured]]) -> tuple[Table, Table]:
    """All classes of all steps and their means: what is written, where the attention lies. Each fits 80 columns."""
    written = Table("step", "novel class", "photos", "purity %", "chance %", "best %", "IoU %", title="the bank")
    looked = Table("step", "novel class", "inside", "outside", "point %", "area %", title="the attention")
    for step, classes in steps.items():
        for name, of in {**classes, "mean": means(classes)}.items():
            first, last = (f"{step}", printable(name)), name == "mean"
            shares = [f"{100 * x:.1f}" for x in (*of[1:4], of.iou)]
            written.add_row(*first, f"{of.photos}", *shares, end_section=last)
            cells = ["–"] * 4
            if of.looked is not None:
                on = of.looked
                cells = [f"{on.inside:.3f}", f"{on.outside:.3f}", f"{100 * on.point:.1f}", f"{100 * on.area:.1f}"]
            looked.add_row(*first, *cells, end_section=last)
    return written, looked


def draw(steps: Mapping[int, Mapping[str, Measured]]) -> bytes:
    """PNG of two panels over steps: purity, each class faint; where the attention lies."""
    figure = Figure(figsize=(9.2, 3.4), layout="constrained")
    left, right = figure.subplots(1, 2)
    over, mean = list(steps), {step: means(classes) for step, classes in steps.items()}
    for name in dict.fromkeys(name for classes in steps.values() for name in classes):
        shown = [(step, 100 * classes[name].purity) for step, classes in steps.items() if name in classes]
        left.plot(*zip(*shown, strict=True), color=GROUP_COLOURS["novel"], alpha=0.3, linewidth=1)
        left.annotate(plain_text(name), shown[-1], fontsize=7, color=GROUP_COLOURS["novel"])
    lines = (("purity", "novel", "o-"), ("best", "all", ":"), ("chance", "background", "--"))
    for value, colour, style in lines:
        values = [100 * getattr(mean[step], value) for step in over]
        left.plot(over, values, style, color=GROUP_COLOURS[colour], markersize=3.5, label=value)
    finish_axes(left, "written pixels on the class, %")
    attended = {step: of.looked for step, of in mean.items() if of.looked is not None}
    parts = (("inside", "novel", "o-"), ("outside", "all", "o-"), ("point", "base", "-"), ("area", "background", "--"))
    for label, colour, style in parts:
        values = [getattr(looked, label) for looked in attended.values()]
        right.plot(list(attended), values, style, color=GROUP_COLOURS[colour], markersize=3.5, label=label)
    right.set_ylim(0, 1)
    finish_axes(right, "attention")
    png = io.BytesIO()
    figure.savefig(png, format="png", dpi=150)
    return png.getvalue()


def main() -> None:
    """Prints the table and writes the plot."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--run", type=Path, required=True, help="folder of the run")
    parser.add_argument("--step", default="all", help="one checkpoint; all of the run by default")
    parser.add_argument("--data_root", help="where the data is, if not where the config says")
    parser.add_argument("--out", type=Path, help="the plot; bank_purity.png in the run's folder by default")
    given = parser.parse_args()
    if given.step != "all" and not given.step.isdecimal():
        fail(f"--step={given.step} is no step: give a number, or all")
    try:
        step = None if given.step == "all" else int(given.step)
        check_model(given.run, step)
        folder, step = find_run(given.run, step)
        wanted = steps_named(folder) if step is None else [step]
        steps = {}
        for number in wanted:
            console.print(f"step {number}, of {wanted}")
            steps[number] = measure(folder, number, given.data_root)
    except UserError as error:
        fail(error)
    steps = {number: classes for number, classes in steps.items() if classes}
    if not steps:
        fail(f"{given.run}: no photo of its first evaluation shows a novel class that its tags know")
    console.print(*tables(steps))
    out = given.out or folder / "bank_purity.png"
    write_bytes(out, draw(steps))
    console.print(f"curves: {printable(str(out))}")


if __name__ == "__main__":
    main()
