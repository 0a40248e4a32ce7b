"""head_forward, seg_loss and image_loss: the head and its losses, without a memory bank."""

from __future__ import annotations

import functools

import jax
import jax.numpy as jnp
import numpy as np

from larvseg_jax.methods.larvseg import losses
from larvseg_jax.methods.larvseg.loss_grid import everywhere
from larvseg_jax.methods.pixel_loss import pixel_cross_entropy
from larvseg_jax.models.cosine_head import cosine_scores, standardised_logits
from larvseg_jax.models.resize import resize_bilinear
from larvseg_jax.vocabulary import IGNORE_LABEL
from tests.parity.golden import (
    GRADIENTS,
    Columns,
    Golden,
    channels_first,
    channels_last,
    head_forward,
    head_of,
    loss_grid,
    merged_columns,
    separate_columns,
    tags_of,
)
from tests.parity.table import ARRAY, Report


def check_head_forward(report: Report, golden: Golden) -> None:
    """Patch features, raw scores, logits; equal columns are computed once and gathered."""
    columns = merged_columns(golden)
    report.exact("cls_index", columns.rows[columns.of_label], golden["cls_index"])
    head, params = head_of(golden)

    @jax.jit
    def forward(params, features):
        patches, table = head_forward(head, params, features, columns)
        return patches, cosine_scores(patches, table.vectors), standardised_logits(patches, table)

    patches, scores, logits = forward(params, channels_last(golden["features"]))
    report.array("embeds", channels_first(patches), golden["embeds"])
    report.array("scores", channels_first(scores[..., columns.of_label]), golden["scores"])
    report.array("masks", channels_first(logits[..., columns.of_label]), golden["masks"])


def check_seg_loss(report: Report, golden: Golden) -> None:
    """L_seg, its gradients, the accuracy."""
    columns = merged_columns(golden)
    head, params = head_of(golden)
    weight = golden.meta["basic_loss_weight"]
    labels = loss_grid(golden, golden["label"])
    label = np.where(labels == IGNORE_LABEL, IGNORE_LABEL, columns.of_label[labels]).astype(np.int32)
    counted = jnp.asarray(label), jnp.ones(len(label), bool)

    @jax.jit
    @functools.partial(jax.value_and_grad, argnums=(0, 1), has_aux=True)
    def loss(params, features):
        patches, table = head_forward(head, params, features, columns)
        raw = losses.segmentation_loss(patches, table, *counted)
        return weight * raw, (raw, standardised_logits(patches, table))

    @jax.jit
    @jax.grad
    def loss_of_logits(logits):
        return weight * pixel_cross_entropy(logits, jnp.asarray(columns.multiplicity), *counted)

    (total, (raw, logits)), (params_grad, features_grad) = loss(params, channels_last(golden["features"]))
    report.array("masks", channels_first(logits[..., columns.of_label]), golden["masks"])
    report.loss("loss_raw", raw, golden["loss_raw"])
    report.loss("loss_basic", total, golden["loss_basic"])
    report.loss("loss_coseg", 0.0, golden["loss_coseg"])
    report.loss("total", total, golden["total"])
    check_gradients(report, params_grad, features_grad, golden.arrays)
    of_columns = np.zeros((*golden["masks"].shape[:1], len(columns.rows), *golden["masks"].shape[2:]))
    np.add.at(of_columns, (slice(None), columns.of_label), golden["grad_masks"])
    report.gradient("grad_masks, equal columns summed", channels_first(loss_of_logits(logits)), of_columns)
    _check_accuracy(report, golden, columns, logits, label)


def check_gradients(report: Report, params_grad, features_grad, recorded) -> None:
    """All gradients of one step; `recorded` holds those of this step."""
    for theirs, ours in GRADIENTS.items():
        if theirs == "beta":  # adds the same number to every logit: no loss depends on it
            report.zero("grad_beta, which is 0", params_grad[ours], recorded["grad_beta"])
        else:
            report.gradient(f"grad_{theirs}", params_grad[ours], recorded[f"grad_{theirs}"])
    report.gradient("grad_features", channels_first(features_grad), recorded["grad_features"])


def _check_accuracy(report: Report, golden: Golden, columns: Columns, logits, label: np.ndarray) -> None:
    """acc_seg lies between counting every tie as wrong and as right.

    Ties are labels that share a column with others (the original picks any of the equal logits) and
    logits nearer to each other than the tolerance of arrays.
    """
    upsampled = np.asarray(resize_bilinear(logits, label.shape[1:]))
    own = np.take_along_axis(upsampled, np.maximum(label, 0)[..., None], -1)[..., 0]
    others = np.where(np.arange(upsampled.shape[-1]) == label[..., None], -np.inf, upsampled).max(-1)
    slack = ARRAY * np.abs(upsampled).max()
    labelled = label != IGNORE_LABEL
    unique = columns.multiplicity[np.maximum(label, 0)] == 1
    surely = np.mean(labelled & unique & (own > others + slack))
    possibly = np.mean(labelled & (own > others - slack))

    # `Original:` divided by the share of processes with a data set that has masks.
    names = golden.meta["mix_batch_datasets"]
    of_ranks = [names[rank % len(names)] for rank in range(golden.meta["world_size"])]
    with_masks = [name for name in of_ranks if name not in golden.meta["weakly_supervised_datasets"]]
    percent = 100.0 * len(of_ranks) / len(with_masks)
    nearest = np.clip(golden["acc_seg"], percent * surely, percent * possibly)
    report.loss("acc_seg, ties either way", nearest, golden["acc_seg"])


def check_image_loss(report: Report, golden: Golden) -> None:
    """L_cls with its gradients."""
    columns = separate_columns(golden)
    head, params = head_of(golden)
    weight = golden.meta["basic_loss_weight"]
    labels = loss_grid(golden, golden["label"])
    tags = tags_of(labels, golden["image_labels"].shape[-1])
    report.exact("image_labels", tags, golden["image_labels"])

    @jax.jit
    @functools.partial(jax.value_and_grad, argnums=(0, 1), has_aux=True)
    def loss(params, features):
        patches, table = head_forward(head, params, features, columns)
        of_pairs = image_level_losses(patches, table, jnp.asarray(tags), labels.shape[-2:])
        return weight * losses.mean_over_pairs(of_pairs, jnp.asarray(tags)), of_pairs

    (total, of_pairs), (params_grad, features_grad) = loss(params, channels_last(golden["features"]))
    image, slot = np.nonzero(tags != IGNORE_LABEL)
    report.exact("pair_img", image, golden["pair_img"])
    report.exact("pair_label", tags[image, slot], golden["pair_label"])
    report.loss("pair_basic", of_pairs[image, slot], golden["pair_basic"])
    report.loss("loss_basic", total, golden["loss_basic"])
    report.loss("loss_coseg", 0.0, golden["loss_coseg"])
    report.loss("total", total, golden["total"])
    report.loss("acc_seg", 0.0, golden["acc_seg"])
    check_gradients(report, params_grad, features_grad, golden.arrays)


def image_level_losses(patches, table, tags, size: tuple[int, int]):
    """L_cls of every pair, (b, l): every position of the loss grid weighs the same."""
    b, h, w, d = patches.shape
    pooled = losses.pooled_classifier(patches.reshape(b, h * w, d), table)
    return losses.image_label_losses(pooled(everywhere(b, (h, w), size)), tags, table.multiplicity)
