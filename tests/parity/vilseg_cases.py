"""vilseg_*: the losses of ViL-Seg with their gradients, and its clusters as classes."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np

from larvseg_jax.methods.contrastive import contrastive_loss
from larvseg_jax.methods.vilseg import clusters, regions, vision
from larvseg_jax.methods.vilseg.network import linear
from larvseg_jax.models.clip import contrastive_logits
from larvseg_jax.models.flip import flip_back
from larvseg_jax.models.resize import resize_bilinear
from tests.parity.golden import Golden
from tests.parity.table import Report

LOSS = 1e-5  # tolerance, relative to the value
LIMIT = 1e-6  # absolute: of a value that is 0 in exact arithmetic


def check_vision(report: Report, golden: Golden) -> None:
    """L_vision with each kind of target, and the centre after a step."""
    weights = {name: jnp.asarray(golden[f"in/{name}"]) for name in ("projection", "bias", "locals", "global")}
    counted = jnp.ones(len(golden["in/global"]), bool)
    center = jnp.asarray(golden["in/center"])
    of_teacher = linear(*(jnp.asarray(golden[f"in/teacher_{name}"]) for name in ("global", "projection", "bias")))
    kinds = {"literal": "literal", "stopgrad": "stopgrad", "sharpened": "centered", "teacher": "ema_teacher"}
    for name, kind in kinds.items():
        sharpens = name in ("sharpened", "teacher")

        @jax.jit
        @jax.value_and_grad
        def loss(weights, kind=kind, sharpens=sharpens):
            head = weights["projection"], weights["bias"]
            student, teacher = [
                float(golden[f"in/{of}_temperature"]) if sharpens else 1.0 for of in ("student", "teacher")
            ]
            own = linear(weights["global"], *head)
            target = vision.targets(of_teacher if kind == "ema_teacher" else own, center, kind, teacher)
            return vision.vision_loss(target, linear(weights["locals"], *head), counted, student)

        value, gradients = loss(weights)
        report.loss(f"{name}_loss", value, golden[f"out/{name}_loss"], LOSS)
        _check_gradients(report, golden, name, gradients)
    own = linear(weights["global"], weights["projection"], weights["bias"])
    for name, logits in (("teacher", of_teacher), ("student", own)):
        after = vision.next_center(center, logits, counted, 0.9)
        report.array(f"next_center_of_{name}", after, golden[f"out/next_center_of_{name}"])


def check_cross(report: Report, golden: Golden) -> None:
    """L_cross one way and both ways."""
    features = {name: jnp.asarray(golden[f"in/{name}"]) for name in ("image", "text", "log_scale")}
    counted = jnp.ones(len(golden["in/image"]), bool)
    for name in ("paper", "symmetric"):

        @jax.jit
        @jax.value_and_grad
        def loss(features, symmetric=name == "symmetric"):
            logits = contrastive_logits(features["image"], features["text"], jnp.exp(features["log_scale"]))
            return contrastive_loss(logits, counted, symmetric=symmetric)

        value, gradients = loss(features)
        report.loss(f"{name}_loss", value, golden[f"out/{name}_loss"], LOSS)
        _check_gradients(report, golden, name, gradients)


def check_iic(report: Report, golden: Golden) -> None:
    """L_cluster of pairs of logits: J, its loss, the limits, and maps of which some are mirrored."""
    pairs = {name: jnp.asarray(golden[f"in/{name}"]) for name in ("logits", "logits_transformed")}
    all_of_them = jnp.ones(len(golden["in/logits"]))
    variants = {
        "paper": (all_of_them, {}),
        "symmetric": (all_of_them, {"symmetric": True}),
        "symmetric_lambda15": (all_of_them, {"symmetric": True, "marginal_weight": 1.5}),
        "masked": (jnp.asarray(golden["in/mask"]), {}),
    }
    for name, (weights, options) in variants.items():

        @jax.jit
        def loss(pairs, weights=weights, options=options):
            return clusters.cluster_loss(pairs["logits"], pairs["logits_transformed"], weights, **options)

        (value, joint), gradients = jax.value_and_grad(loss, has_aux=True)(pairs)
        report.loss(f"{name}_loss", value, golden[f"out/{name}_loss"], LOSS)
        if f"out/{name}_joint" in golden.arrays:
            report.array(f"{name}_joint", joint, golden[f"out/{name}_joint"])
        _check_gradients(report, golden, name, gradients)
    _check_limits(report, golden)

    @jax.jit
    @jax.value_and_grad
    def of_maps(maps):
        back = flip_back(maps["logits_transformed"], jnp.asarray(golden["in/flipped"] != 0))
        return clusters.cluster_loss(maps["logits"], back, jnp.ones(back.shape[:3]))[0]

    value, gradients = of_maps({name: jnp.asarray(golden[f"in/map_{name}"]) for name in pairs})
    report.loss("map_loss", value, golden["out/map_loss"], LOSS)
    _check_gradients(report, golden, "map", gradients)


def _check_limits(report: Report, golden: Golden) -> None:
    """Hard labels in all clusters, in two of them, and the same probability for all."""
    count = golden["in/hard"].shape[1]

    def of_probabilities(probabilities):
        logits = jnp.log(jnp.maximum(jnp.asarray(probabilities, jnp.float32), 1e-30))
        return clusters.cluster_loss(logits, logits, jnp.ones(len(logits)))[0]

    report.loss("hard_balanced_loss", of_probabilities(golden["in/hard"]), golden["out/hard_balanced_loss"], LOSS)
    report.loss("two_of_c_loss", of_probabilities(golden["in/two_of_c"]), golden["out/two_of_c_loss"], LOSS)
    report.loss("log_c", np.log(count), golden["out/log_c"], LOSS)
    uniform = of_probabilities(np.full((60, count), 1 / count))
    report.zero("uniform_loss", uniform, golden["out/uniform_loss"])


def check_cluster_head(report: Report, golden: Golden) -> None:
    """L_cluster through the head, with gradients to the patches and without."""
    given = {name: jnp.asarray(golden[f"in/{name}"]) for name in ("pixels", "pixels_transformed", "kernel", "bias")}
    for name in ("joint", "detached"):

        @jax.jit
        @jax.value_and_grad
        def loss(given, stop=name == "detached"):
            pixels = given["pixels"], given["pixels_transformed"]
            pixels = jax.lax.stop_gradient(pixels) if stop else pixels
            before, after = (linear(of, given["kernel"], given["bias"]) for of in pixels)
            return clusters.cluster_loss(before, after, jnp.ones(len(before)))[0]

        value, gradients = loss(given)
        report.loss(f"{name}_loss", value, golden[f"out/{name}_loss"], LOSS)
        _check_gradients(report, golden, name, gradients)


def check_inference(report: Report, golden: Golden) -> None:
    """Clusters, regions, their classes; labels on the patch grid and at the picture's size."""
    pixels, texts = jnp.asarray(golden["in/pixels"])[None], jnp.asarray(golden["in/text"])
    logits = linear(pixels, *(jnp.asarray(golden[f"in/{name}"]) for name in ("kernel", "bias")))
    found = regions.regions_of(pixels, logits)
    cosine = regions.region_cosines(found, texts)
    classes = regions.region_classes(found, cosine)
    report.array("cluster_logits", logits[0], golden["out/cluster_logits"])
    report.exact("clusters", found.clusters[0], golden["out/clusters"])
    report.exact("counts", found.counts[0], golden["out/counts"])
    report.array("regions", found.means[0], golden["out/regions"])
    report.array("cosine", cosine[0], golden["out/cosine"])
    report.exact("cluster_class", classes[0], golden["out/cluster_class"])
    of_normalised = regions.regions_of(pixels, logits, normalise=True)
    report.array("regions_of_normalised", of_normalised.means[0], golden["out/regions_of_normalised"])
    for upsample in ("labels", "logits"):
        scores = regions.class_scores(logits, found, cosine, upsample)
        report.exact(f"labels, upsample={upsample}", jnp.argmax(scores[0], -1), golden["out/labels"])
    size = golden["out/labels_upsampled"].shape
    report.array("cluster_logits_upsampled", resize_bilinear(logits[0], size), golden["out/cluster_logits_upsampled"])
    winners = jnp.argmax(resize_bilinear(regions.occupied(logits, found)[0], size), -1)
    report.exact("labels_upsampled", classes[0][winners], golden["out/labels_upsampled"])


def _check_gradients(report: Report, golden: Golden, variant: str, gradients) -> None:
    for name, gradient in gradients.items():
        report.gradient(f"grad_{variant}_{name}", gradient, golden[f"grad/{variant}_{name}"])


VILSEG_CASES = {
    "vilseg_vision": check_vision,
    "vilseg_cross": check_cross,
    "vilseg_iic": check_iic,
    "vilseg_cluster_head": check_cluster_head,
    "vilseg_inference": check_inference,
}
