"""metrics_*, scores, slide_* and resize_shapes: what evaluation is made of."""

from __future__ import annotations

import jax
import numpy as np

from data_pipelines.transforms import resized_shape
from larvseg_jax.evaluation import sliding_window
from larvseg_jax.evaluation.confusion import Confusion
from larvseg_jax.evaluation.metrics import SegmentationCounts
from larvseg_jax.vocabulary import IGNORE_LABEL, Vocabulary
from tests.parity.golden import Golden, channels_first, channels_last
from tests.parity.table import ARRAY, METRIC, Report

UNLABELLED = 255  # in the truth of scores

CLASS_BLOCK = 3
"""Classes stitched at a time: several blocks, and a last one that is smaller."""


def check_metrics(report: Report, golden: Golden) -> None:
    """Pixel counts of every photo, exactly; scores of all together."""
    names = tuple(f"class {i}" for i in range(golden.meta["n_cls"]))
    total = SegmentationCounts.zeros(len(names))
    for i in range(golden.meta["n_img"]):
        label = golden[f"label{i}"].astype(np.int32)
        label[label == golden.meta["ignore_index"]] = IGNORE_LABEL
        counts = SegmentationCounts.zeros(len(names)).add(golden[f"pred{i}"].astype(np.int32), label)
        union = counts.predicted + counts.labelled - counts.intersection
        areas = counts.intersection, union, counts.predicted, counts.labelled
        report.exact("areas", np.stack(areas), golden["areas"][i].astype(np.int64))
        total += counts
    summary = total.summary(names, Vocabulary(names, (), ()))
    for name in ("iou", "acc", "dice"):
        report.loss(name, getattr(summary, name), golden[name], METRIC)
    report.loss("iou_pre_eval", summary.iou, golden["iou_pre_eval"], METRIC)
    report.loss("acc_pre_eval", summary.acc, golden["acc_pre_eval"], METRIC)
    report.loss("aAcc", summary.pixel_acc, golden["aAcc"], METRIC)
    for name, value in (("mIoU", summary.mean_iou), ("mAcc", summary.mean_acc)):
        report.loss(name, value, golden[name], METRIC)
        report.loss(f"{name}_percent_2dec", round(100 * value, 2), golden[f"{name}_percent_2dec"], METRIC)


def check_scores(report: Report, golden: Golden) -> None:
    """Scores of seen and unseen classes, which are base and novel ones here."""
    count = len(golden["in/unseen"])
    names = tuple(f"class {i}" for i in range(count))
    unseen = tuple(name for name, is_unseen in zip(names, golden["in/unseen"], strict=True) if is_unseen)
    truth = np.where(golden["in/truth"] == UNLABELLED, np.int32(IGNORE_LABEL), golden["in/truth"])[None]
    prediction = golden["in/prediction"][None]
    vocabulary = Vocabulary(names, tuple(name for name in names if name not in unseen), unseen)
    summary = SegmentationCounts.zeros(count).add(prediction, truth).summary(names, vocabulary)
    pairs = Confusion.zeros().add(prediction, truth, count)
    confusion = np.zeros((count, count), np.int32)
    confusion[pairs.labels, pairs.predictions] = pairs.pixels
    report.exact("confusion", confusion, golden["out/confusion"])
    valid = golden["out/iou_valid"] != 0
    report.exact("iou_valid", ~np.isnan(summary.iou), valid)
    report.loss("iou", summary.iou[valid], golden["out/iou"][valid], METRIC)
    for name, value in {
        "miou": summary.mean_iou,
        "miou_seen": summary.base_iou,
        "miou_unseen": summary.novel_iou,
        "hiou": summary.harmonic_iou,
        "pixel_accuracy": summary.pixel_acc,
        "pixel_accuracy_seen": summary.base_pixel_acc,
        "pixel_accuracy_unseen": summary.novel_pixel_acc,
    }.items():
        report.loss(name, value, golden[f"out/{name}"], METRIC)


def check_slide(report: Report, golden: Golden) -> None:
    """The windows, their logits stitched together, and the labels."""
    images = channels_last(golden["image"])
    (height, width), (stride_y, stride_x) = golden.meta["crop"], golden.meta["stride"]
    size, out = images.shape[1:3], golden.meta["ori_shape"]
    tops = sliding_window.window_starts(size[0], height, stride_y)
    lefts = sliding_window.window_starts(size[1], width, stride_x)
    boxes = [(y, x, min(y + height, size[0]), min(x + width, size[1])) for y in tops for x in lefts]
    report.exact("windows", np.array(boxes), golden["windows"])
    for i, image in enumerate(images):
        windows = np.stack([image[y1:y2, x1:x2] for y1, x1, y2, x2 in boxes])
        if height == width and stride_y == stride_x:
            report.exact("cut windows", sliding_window.cut_windows(image, height, stride_y), windows)
        of_windows = _network(golden, windows)
        grid = of_windows.shape[1:3]

        def stitch(shape, grid=grid):
            return (
                sliding_window.stitch_matrix(size[0], height, stride_y, grid[0], shape[0]),
                sliding_window.stitch_matrix(size[1], width, stride_x, grid[1], shape[1]),
            )

        patches = sliding_window.mosaic(of_windows, len(tops))
        report.array(
            "logits",
            channels_first(sliding_window.stitched_logits(patches, *stitch(size))),
            golden["logits"][i],
        )
        logits = sliding_window.stitched_logits(patches, *stitch(out))
        report.array("logits_rescaled", channels_first(logits), golden["logits_rescaled"][i])
        report.array("prob", channels_first(jax.nn.softmax(logits)), golden["prob"][i])
        labels = sliding_window.predict_label_map(patches, *stitch(out), CLASS_BLOCK)
        best = np.sort(golden["logits_rescaled"][i], 0)
        clear = best[-1] - best[-2] > ARRAY * np.abs(best).max()
        report.exact("pred, where the margin is clear", labels[clear], golden["pred"][i][clear])


def _network(golden: Golden, windows: np.ndarray) -> np.ndarray:
    """The recorded toy network on windows (n, h, w, 3): patch logits (n, gh, gw, k)."""
    p = golden.meta["patch"]
    n, rows, columns = len(windows), windows.shape[1] // p, windows.shape[2] // p
    cut = windows[:, : rows * p, : columns * p].reshape(n, rows, p, columns, p, 3)
    logits = np.einsum("nrycxi,kiyx->nrck", cut, golden["conv_weight"], optimize=True) + golden["conv_bias"]
    mean = windows.mean((1, 2)) @ golden["mean_weight"].T
    return (logits + mean[:, None, None]).astype(np.float32)


def check_resize_shapes(report: Report, golden: Golden) -> None:
    """Sizes after the training resize. Where the original makes a side vanish, ours keeps one pixel."""
    columns = {name: golden["rows"][:, i].tolist() for i, name in enumerate(golden.meta["columns"])}
    names = "height", "width", "base_long", "base_short", "ratio_x1000"
    ours = [
        resized_shape(height, width, (long, short), ratio / 1000)
        for height, width, long, short, ratio in zip(*(columns[name] for name in names), strict=True)
    ]
    report.exact("out_height, out_width", np.array(ours), np.stack([columns["out_height"], columns["out_width"]], 1))
