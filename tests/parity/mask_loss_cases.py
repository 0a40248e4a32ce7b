"""mask2former_*: points, costs, assignments, losses with their gradients, and inference."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np

from larvseg_jax.methods.cel import inference, mask_losses, matching, points
from larvseg_jax.models.resize import resize_bilinear
from larvseg_jax.vocabulary import IGNORE_LABEL
from tests.parity.golden import Golden, channels_first
from tests.parity.table import Report

LOSS = 1e-5  # tolerance, relative to the value


def check_losses(report: Report, golden: Golden) -> None:
    """Everything from logits and recorded draws to the total loss and its gradients."""
    pictures = sum(name.endswith("/gt_labels") for name in golden.arrays)
    layers = sum(name.endswith("/loss_weighted") for name in golden.arrays)
    slots = max(len(golden[f"picture{i}/gt_labels"]) for i in range(pictures)) + 1  # one that fills up in each
    labels = np.full((pictures, slots), IGNORE_LABEL, np.int32)
    label = np.full((pictures, *golden["picture0/gt_masks"].shape[1:]), IGNORE_LABEL, np.int32)
    for i in range(pictures):
        of_picture = golden[f"picture{i}/gt_labels"]
        labels[i, : len(of_picture)] = of_picture
        for mask, column in zip(golden[f"picture{i}/gt_masks"], of_picture, strict=True):
            label[i][mask == 1] = column
    labels, label = jnp.asarray(labels), jnp.asarray(label)
    logits = {
        name: jnp.stack([jnp.asarray(golden[f"layer{layer}/{name}"]) for layer in range(layers)])
        for name in ("mask_logits", "class_logits")
    }
    matched = _check_matching(report, golden, logits, label, labels)
    candidates, anywhere, count = _draws(report, golden, logits["mask_logits"], matched)
    weights = dict(zip(("class", "mask", "dice", "none"), golden["weights_class_mask_dice_noobject"], strict=True))

    @jax.jit
    def loss(logits):
        pairs = maps_of(logits["mask_logits"], matched)
        masks = mask_losses.losses_of_pairs(pairs, matched, label, labels, candidates, anywhere, count)
        queries = logits["class_logits"].shape[2]
        said = matching.label_of_query(matched, labels, queries)
        counted = jnp.ones(pictures, bool)
        classes = mask_losses.no_object_loss(logits["class_logits"], said, counted, float(weights["none"]))
        found = {"mask": masks.ce, "dice": masks.dice, "class": classes}
        weighted = sum(found[name] * jnp.float32(weights[name]) for name in found)
        return jnp.sum(weighted), found | {"weighted": weighted}

    (total, found), gradients = jax.value_and_grad(loss, has_aux=True)(logits)
    report.loss("loss_total", total, golden["loss_total"], LOSS)
    for layer in range(layers):
        for name, values in found.items():
            report.loss(f"loss_{name}", values[layer], golden[f"layer{layer}/loss_{name}"], LOSS)
        for name, gradient in gradients.items():
            report.gradient(f"grad_{name}", gradient[layer], golden[f"layer{layer}/grad_{name}"])


def maps_of(mask_logits, matched: matching.Matching):
    """Those of the matched queries."""
    return jnp.take_along_axis(mask_logits, matched.query[..., None, None], axis=-3)


def _check_matching(report: Report, golden: Golden, logits, label, labels) -> matching.Matching:
    """Costs and assignments, with the class term and without; returns the former."""
    layers, pictures = logits["mask_logits"].shape[:2]
    at = jnp.stack(
        [
            jnp.stack([jnp.asarray(golden[f"layer{layer}/picture{i}/match_points"]) for i in range(pictures)])
            for layer in range(layers)
        ]
    )

    @jax.jit
    def costs(logits):
        predictions = points.sample_maps(logits["mask_logits"], at)
        everywhere = jnp.broadcast_to(labels, (layers, *labels.shape))
        targets = points.sample_masks(label, everywhere, at[:, :, None])
        found = {
            "pred_at_points": predictions,
            "gt_at_points": targets,
            "cost_mask": matching.mask_cost(predictions, targets, ce=1.0, dice=0.0),
            "cost_dice": matching.mask_cost(predictions, targets, ce=0.0, dice=1.0),
            "cost_class": matching.class_cost(jax.nn.softmax(logits["class_logits"]), labels),
        }
        agnostic = matching.mask_cost(predictions, targets, ce=5.0, dice=5.0)
        found["cost_total"] = agnostic + 2 * found["cost_class"]
        both = matching.match(jnp.stack([found["cost_total"], agnostic]), jnp.stack([everywhere] * 2) != IGNORE_LABEL)
        return found, both

    found, both = costs(logits)
    for layer in range(layers):
        for i in range(pictures):
            prefix = f"layer{layer}/picture{i}"
            count = len(golden[f"picture{i}/gt_labels"])
            for name, values in found.items():
                of_picture = np.asarray(values[layer, i])
                real = {"pred_at_points": of_picture, "gt_at_points": of_picture[:count]}
                report.array(name, real.get(name, of_picture[:, :count]), golden[f"{prefix}/{name}"], LOSS)
            for kind, name in enumerate(("", "agnostic_")):
                pairs = dict(zip(golden[f"{prefix}/{name}cols"], golden[f"{prefix}/{name}rows"], strict=True))
                expected = [pairs[column] for column in range(count)]
                report.exact(f"{name}rows", both.query[kind, layer, i, :count], expected)
                slots = labels.shape[1]
                report.exact(f"{name}matched", both.matched[kind, layer, i], np.arange(slots) < count)
    return matching.Matching(both.query[0], both.matched[0])


def _draws(report: Report, golden: Golden, mask_logits, matched):
    """The recorded draws, from pair after pair to the slots of labels, and that the chosen points are the recorded."""
    layers, pictures, slots = matched.query.shape
    count = golden["layer0/chosen_points"].shape[1]
    placed = {
        name: np.zeros((layers, pictures, slots, *golden[f"layer0/{name}"].shape[1:]), np.float32)
        for name in ("draws_oversampled", "draws_uniform", "chosen_points")
    }
    for layer in range(layers):
        pair = 0
        for i in range(pictures):
            for column in golden[f"layer{layer}/picture{i}/cols"]:
                for name, into in placed.items():
                    into[layer, i, column] = golden[f"layer{layer}/{name}"][pair]
                pair += 1
    candidates, anywhere = (jnp.asarray(placed[name]) for name in ("draws_oversampled", "draws_uniform"))
    of_pairs = maps_of(mask_logits, matched)
    chosen = points.least_certain_points(of_pairs, candidates, anywhere, count)
    there = np.asarray(matched.matched)
    as_sets = [{tuple(point) for point in pair} for pair in np.asarray(chosen)[there].tolist()]
    recorded = [{tuple(point) for point in pair} for pair in placed["chosen_points"][there].tolist()]
    report.exact("chosen_points", [len(a ^ b) for a, b in zip(as_sets, recorded, strict=True)], [0] * len(recorded))
    return candidates, anywhere, count


def check_inference(report: Report, golden: Golden) -> None:
    """Masks at the picture's size, scores and labels."""
    size = tuple(golden["in/size"].tolist())
    masks = resize_bilinear(jnp.asarray(golden["in/mask_logits"])[..., None], size)[..., 0]
    probabilities = inference.without_no_object(jnp.asarray(golden["in/class_logits"]))
    scores = inference.semantic_scores(probabilities, masks)
    report.array("upsampled", masks, golden["out/upsampled"])
    report.array("semantic", channels_first(scores), golden["out/semantic"])
    report.exact("labels", jnp.argmax(scores, -1), golden["out/labels"])


MASK_LOSS_CASES = {
    "mask2former_losses": check_losses,
    "mask2former_inference": check_inference,
}
