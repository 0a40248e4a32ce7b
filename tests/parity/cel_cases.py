"""cel_losses, cel_inference: matching by cosines, every form of the class and rank losses with gradients, ensembles."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np

from larvseg_jax.methods.cel import class_losses, inference, matching
from larvseg_jax.methods.cel.class_losses import ClassLoss, RankLoss
from larvseg_jax.methods.cel.mask_losses import no_object_loss
from larvseg_jax.methods.crops import boxes_of
from larvseg_jax.models.cosine_head import cosine_scores, unit
from larvseg_jax.vocabulary import IGNORE_LABEL
from tests.parity.golden import Golden, channels_first
from tests.parity.table import Report

LOSS = 1e-5  # tolerance, relative to the value


def check_losses(report: Report, golden: Golden) -> None:
    """Matching by each cost; all losses, and the gradients to the class embeddings and the learned background."""
    embeddings, texts = jnp.asarray(golden["in/class_embeddings"]), unit(jnp.asarray(golden["in/text"]))
    tau, share = float(golden["in/temperature"]), float(golden["in/lambda"])
    labels = _listed(golden["in/label_multihot"])
    counted = jnp.ones(len(labels), bool)
    queries = embeddings.shape[1]
    similarity = jax.jit(lambda embeddings: cosine_scores(unit(embeddings), texts))(embeddings)
    report.array("similarity", similarity, golden["out/similarity"])
    report.array("probability", jax.nn.softmax(similarity / tau), golden["out/probability"])
    kinds = ("similarity", "probability", "log_probability")
    costs = [matching.class_cost(matching.fitness(similarity, kind, tau), labels) for kind in kinds]
    pairs = jax.jit(matching.match)(jnp.stack(costs), jnp.stack([labels != IGNORE_LABEL] * len(kinds)))
    said = matching.label_of_query(pairs, labels, queries)
    for kind, found in zip(kinds, said, strict=True):
        report.exact(f"match_{kind}", found, golden[f"out/match_{kind}"])
    said = said[0]

    def class_of(options, weight=1.0):
        return lambda r: class_losses.class_loss(r / tau, said, counted, options) * weight

    def rank_of(options):
        return lambda r: class_losses.rank_loss(r, labels, counted, options, tau)

    split, paper = ClassLoss(share), RankLoss()
    losses = {f"class_{name}": class_of(ClassLoss(share, name)) for name in ("sum", "mean", "split", "weighted")}
    losses |= {
        "class_split_kl_u_p": class_of(ClassLoss(share, kl="u_p")),
        # One part alone is of all pictures together.
        "ce_matched_sum": class_of(ClassLoss(1.0, "sum"), float(len(labels))),
        "kl_unmatched_sum": class_of(ClassLoss(0.0, "sum"), float(len(labels))),
        "rank_paper": rank_of(paper),
        "rank_pairs": rank_of(RankLoss("pairs")),
        "rank_paper_scaled": rank_of(RankLoss(scale="temperature")),
        "total_split_paper": lambda r: 2 * class_of(split)(r) + rank_of(paper)(r),
    }

    @jax.jit
    def all_of_them(embeddings):
        def values(embeddings):
            r = cosine_scores(unit(embeddings), texts)
            return {name: loss(r) for name, loss in losses.items()}

        return values(embeddings), jax.jacrev(values)(embeddings)

    for name, (value, gradient) in _joined(*all_of_them(embeddings)).items():
        report.loss(name, value, golden[f"out/{name}"], LOSS)
        report.gradient(f"grad_{name}", gradient, golden[f"grad/{name}_class_embeddings"])
    logits = similarity / tau
    entropies = class_losses.cross_entropy(logits, jnp.where(said == IGNORE_LABEL, 0, said))
    divergences = class_losses.divergence_from_uniform(logits, "p_u")
    matched = np.asarray(said) != IGNORE_LABEL  # each is 0 for the queries that it is not of
    report.array("ce_per_query", np.where(matched, entropies, 0), golden["out/ce_per_query"])
    report.array("kl_per_query", np.where(matched, 0, divergences), golden["out/kl_per_query"])
    report.array("best_similarity", class_losses.best_similarity(similarity), golden["out/best_similarity"])
    _check_background(report, golden, said)


def _check_background(report: Report, golden: Golden, said) -> None:
    """The baseline: a learned vector is the class of queries without a label."""
    tau = float(golden["in/temperature"])
    given = {"class_embeddings": golden["in/class_embeddings"], "background": golden["in/background"]}

    @jax.jit
    @jax.value_and_grad
    def loss(given):
        vectors = jnp.concatenate([jnp.asarray(golden["in/text"]), given["background"][None]])
        logits = cosine_scores(unit(given["class_embeddings"]), unit(vectors)) / tau
        return no_object_loss(logits, said, jnp.ones(len(said), bool), 0.1)

    value, gradients = loss({name: jnp.asarray(x) for name, x in given.items()})
    report.loss("baseline_class", value, golden["out/baseline_class"], LOSS)
    for name, gradient in gradients.items():
        report.gradient(f"grad_baseline_{name}", gradient, golden[f"grad/baseline_{name}"])


def check_inference(report: Report, golden: Golden) -> None:
    """Eq. 4, valid proposals, and both ensembles with their maps."""
    own, masks = jnp.asarray(golden["in/probability"]), jnp.asarray(golden["in/mask_logits"])
    seen = jnp.asarray(golden["in/seen"] > 0)
    valid = boxes_of(masks > 0)[:, 2] > 0
    report.exact("valid", valid, golden["out/valid"] > 0)
    clip = np.full(own.shape, np.nan, np.float32)  # there is no crop of the others
    clip[np.asarray(golden["out/valid"]) > 0] = jax.nn.softmax(jnp.asarray(golden["in/clip_logits"]))
    simple = inference.simple_ensemble(own, jnp.asarray(clip), valid, seen, float(golden["in/weight"]))
    for name, probabilities in (("eq4", own), ("ensemble", simple)):
        scores = inference.semantic_scores(probabilities, masks)
        report.array(f"{name}_scores", channels_first(scores), golden[f"out/{name}_scores"])
        report.exact(f"{name}_labels", jnp.argmax(scores, -1), golden[f"out/{name}_labels"])
    report.array("ensemble", simple, golden["out/ensemble"])
    zegformer = inference.zegformer_ensemble(own, jnp.asarray(clip), valid, seen)
    report.array("zegformer", zegformer, golden["out/zegformer"])
    calibrated = inference.zegformer_calibrated(inference.semantic_scores(zegformer, masks), seen)
    report.array("zegformer_calibrated", channels_first(calibrated), golden["out/zegformer_calibrated"])


def _listed(multi_hot: np.ndarray):
    """The labels of each picture, filled up with IGNORE_LABEL, one slot more than needed."""
    slots = int(multi_hot.sum(1).max()) + 1
    found = [np.flatnonzero(row) for row in multi_hot]
    return jnp.asarray([np.pad(x, (0, slots - len(x)), constant_values=IGNORE_LABEL) for x in found], jnp.int32)


def _joined(values, gradients):
    return {name: (values[name], gradients[name]) for name in values}


CEL_CASES = {"cel_losses": check_losses, "cel_inference": check_inference}
