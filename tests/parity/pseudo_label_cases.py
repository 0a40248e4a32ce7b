"""cel_pseudo_labels_*: scores of proposals (Eq. 9 and 10), their boxes and crops."""

from __future__ import annotations

import jax.numpy as jnp
import numpy as np

from larvseg_jax.methods.crops import boxes_of, class_scores, crops_of
from larvseg_jax.models.clip import normalised
from larvseg_jax.pseudo_labels.labeller import best_scores
from tests.parity.golden import Golden, channels_first, channels_last
from tests.parity.table import Report

SOFTMAX = 2e-4  # behind softmax(100 cos)


def check_pseudo_labels(report: Report, golden: Golden) -> None:
    """Scores with scales 1 and 100, and what becomes a label; boxes, crops, crops filled outside the mask."""
    images, text = jnp.asarray(golden["in/image_embeddings"]), jnp.asarray(golden["in/text"])
    report.array("cosine", normalised(images) @ normalised(text).T, golden["out/cosine"])
    for scale in (1, 100):
        tolerance = SOFTMAX if scale == 100 else 2e-5
        scores = class_scores(images, text, jnp.asarray(float(scale)))
        report.array(f"scores_scale{scale}", scores, golden[f"out/scores_scale{scale}"], tolerance)
        best = best_scores(scores, jnp.ones(len(images), bool))
        report.array(f"best_scale{scale}", best, golden[f"out/best_scale{scale}"], tolerance)
        labels = np.asarray(best) > golden["in/threshold"]
        report.exact(f"labels_scale{scale}", labels, golden[f"out/labels_scale{scale}"] > 0)
    masks = jnp.asarray(golden["in/masks"] > 0.5)
    filled = golden["in/masks"].any((1, 2))
    report.exact("boxes_xyxy", boxes_of(masks)[filled], golden["out/boxes_xyxy"])
    image, side = jnp.asarray(channels_last(golden["in/image"])), golden["out/crops"].shape[-1]
    for name, fill in (("crops", None), ("crops_filled", jnp.asarray(golden["in/fill"]))):
        crops, valid = crops_of(image, masks, side, fill)
        report.exact(f"{name}_valid", valid, filled)
        report.array(name, channels_first(crops)[filled], golden[f"out/{name}"])


PSEUDO_LABEL_CASES = {"cel_pseudo_labels": check_pseudo_labels}
