"""What the gate measures: ratios against a named baseline, both in one run on the CPU, minutes in all."""

from __future__ import annotations

from collections.abc import Callable

from benchmarks._ratio_table import Figure

IN_TIME, IN_MEMORY = 0.25, 0.03
"""Tolerances: what two runs on a shared machine of 2 cores differ by and more; XLA's plan of memory hardly moves."""


def attention() -> dict[str, Figure]:
    """A layer forward and backward, best of several rounds in turn."""
    from benchmarks.attention import SHAPES, VARIANTS, seconds

    figures = {}
    for shape, repeats in (("ViT-B/16, 512 px", 5), ("small photos", 40)):
        found = seconds({name: VARIANTS[name] for name in ("library", "larvseg_jax")}, SHAPES[shape], repeats)
        ratio = min(found["larvseg_jax"]) / min(found["library"])
        name = f"attention layer of {SHAPES[shape][1]:,} tokens: time"
        figures[name] = Figure("attention", ratio, IN_TIME, "jax.nn.dot_product_attention")
    return figures


def classes() -> dict[str, Figure]:
    """Image-level losses, closed form over direct form; of 21,841 classes the direct form is compiled only."""
    from benchmarks.class_scaling import over_direct

    figures = {}
    for count, repeats in ((150, 40), (847, 15), (2_000, 10), (21_841, 0)):
        for what, ratio in over_direct(count, repeats, largest=4.0).items():
            tolerance = 0.4 if what == "time" else IN_MEMORY  # 1.3 times as long where one core was left
            name = f"image-level losses of {count:,} classes: {what}"
            figures[name] = Figure("classes", ratio, tolerance, "logits of every pixel")
    return figures


def prediction() -> dict[str, Figure]:
    """A photo's best 5 classes over the network alone, median of the ratios of two processes."""
    from benchmarks.predict import measure, summary

    runs = measure([("512x512", 20), ("512x512", 21_841)], rounds=2)
    return {
        f"prediction of {size} pixels, {count:,} classes: time": Figure(
            "prediction", summary(found)["ratio"], IN_TIME, "the network alone"
        )
        for (size, count), found in runs.items()
    }


def input_pipeline() -> dict[str, Figure]:
    """Processor time of a picture, mean over two draws of the best of 4."""
    import cv2

    from benchmarks import _plain_pipelines
    from benchmarks._our_pipeline import our_rounds
    from benchmarks._pictures import SETTINGS, draw_pictures
    from benchmarks.input_pipeline import OURS, measure, plain_rounds

    cv2.setNumThreads(1)
    pictures = {name: draw_pictures(name, 24) for name in SETTINGS}
    pipelines = {
        OURS: our_rounds(pictures, 12),
        "mmcv style": plain_rounds(_plain_pipelines.mmcv_style, pictures, 12),
    }
    figures = {}
    for name in pictures:
        found = measure(name, pipelines, rounds=2, repeats=4)
        ratio = found[OURS]["cpu"] / found["mmcv style"]["cpu"]
        baseline = "OpenCV and NumPy as mmsegmentation 0.x does it"
        figures[f"input pipeline, {name}: processor time"] = Figure("input_pipeline", ratio, 0.15, baseline)
    return figures


def pytorch(python: str) -> dict[str, Figure]:
    """A training step and its heads over PyTorch's with its fused attention, in turn: best of 1 and 3; minutes."""
    from benchmarks.vs_pytorch import Summary, comparisons, measure
    from larvseg_jax.devices.host_memory import use_one_heap

    use_one_heap()
    figures = {}
    with comparisons("float32", 96, python, repeats=1) as made:
        for title, works, repeats in made:
            found = measure(title, dict(list(works.items())[:2]), repeats)
            (_, ours), (other, theirs) = ((name, Summary.of(results).best) for name, results in found.items())
            figures[f"{title}: time"] = Figure("pytorch", ours / theirs, 0.3, other)
    return figures


PARTS: dict[str, Callable[[], dict[str, Figure]]] = {
    "input_pipeline": input_pipeline,
    "attention": attention,
    "classes": classes,
    "prediction": prediction,
}
PYTORCH = "pytorch"
"""The part that needs an interpreter with PyTorch."""
