"""Whether the query that has a class's mask is the one that names it, which two separate matchings leave to chance.

    python -m benchmarks.named_masks --run=runs/cel_scenes_true_uniform_rank1 [--step=N] [--count=150] [--data_root=DIR]

Of the photos of the first evaluation, and of each class in their masks that some query has with an IoU of 0.5 or more:

  found             share of the classes of photos that have such a query; the other lines are means over these
  one query         how often the query of the best mask is the one most like the class's name
  IoU of namer      how well the mask of the query most like the name fits the class
  right             how often the query of the best mask has the class as its most probable one
  entropy           of its probabilities (Eq. 2), over that of a uniform distribution
  entropy of namer  the same of the query most like the name

The classes that compete are those of the evaluation, without "no object". A photo must fit into one window.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Bool, Float
from rich.table import Table

from benchmarks._of_run import measure_run, opened
from benchmarks.cluster_purity import of_pixels, one_window
from larvseg_jax.console import console, track
from larvseg_jax.evaluation.windows import Windows
from larvseg_jax.methods.cel.method import Cel
from larvseg_jax.models.cosine_head import cosine_scores

_FOUND = 0.5  # IoU from which on a query has a mask


def of_class(
    logits: Float[np.ndarray, "q c"], masks: Bool[np.ndarray, "q h w"], shown: Bool[np.ndarray, "h w"], column: int
) -> dict[str, float]:
    """The figures of one class of a photo, as the page's head says them; {"found": 0} if no query has its mask.

    Args:
      logits: cosines with the names over the temperature.
      masks: of the queries.
      shown: where the class is, as its mask says.
      column: of the class.
    """
    iou = (masks & shown).sum((1, 2)) / np.maximum((masks | shown).sum((1, 2)), 1)
    best, namer = int(iou.argmax()), int(logits[:, column].argmax())
    if iou[best] < _FOUND:
        return {"found": 0.0}
    exponents = np.exp(logits - logits.max(1, keepdims=True))
    p = exponents / exponents.sum(1, keepdims=True)
    entropy = -(p * np.log(np.maximum(p, 1e-30))).sum(1) / math.log(p.shape[1])
    return {
        "found": 1.0,
        "one query": float(best == namer),
        "IoU of namer": float(iou[namer]),
        "right": float(p[best].argmax() == column),
        "entropy": float(entropy[best]),
        "entropy of namer": float(entropy[namer]),
    }


def measure(folder: Path, count: int, step: int | None = None, data_root: str | None = None) -> dict[str, float]:
    """The means by the names above; prints the table."""
    trained, method, evaluation, label_set, source = opened(folder, step, data_root, Cel, "CEL: only that has queries")
    text = jnp.asarray(trained.memory)[jnp.asarray(label_set.rows)]
    proposed = jax.jit(lambda images: method.last_proposals(trained.params, images))
    found: dict[str, list[float]] = {}
    for i in track(range(min(count, len(source))), min(count, len(source)), "photos"):
        example = source[i]
        last = proposed(jnp.asarray(one_window(evaluation.windows, example["image"])))
        logits = np.asarray(cosine_scores(last.vectors[0], text))[0] / method.config.temperature
        label = np.asarray(example.get("label"))
        masks = _of_pixels(np.asarray(last.masks[0, 0]) > 0, label.shape, evaluation.windows)
        for column in np.unique(label[(label >= 0) & (label < len(label_set))]).tolist():
            for name, value in of_class(logits, masks, label == column, column).items():
                found.setdefault(name, []).append(value)
    means = {name: float(np.mean(values)) for name, values in found.items()}
    table = Table("", "mean", title=f"{folder}, step {trained.step}: {len(found.get('found', ()))} classes of photos")
    for name, value in means.items():
        table.add_row(name, f"{value:.3f}")
    console.print(table)
    return means


def _of_pixels(masks: np.ndarray, shape: tuple[int, ...], windows: Windows) -> np.ndarray:
    """Masks on the grid of a window as masks of the photo's pixels, (q, h, w)."""
    height, width = shape
    element = windows.window // masks.shape[1]
    places = np.arange(masks[0].size).reshape(masks.shape[1:])
    of_pixel = of_pixels(places, (height, width), windows.test_size((height, width, 3)), element)
    return masks.reshape(len(masks), -1)[:, of_pixel]


def main(arguments: Sequence[str] | None = None) -> None:
    """Measures and prints."""
    measure_run(measure, __doc__, 150, arguments)


if __name__ == "__main__":
    main()
