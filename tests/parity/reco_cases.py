"""reco_cosegment_*: ReCo's seeds and reference features, as meant and as published, and the score of a picture."""

from __future__ import annotations

import jax.numpy as jnp

from larvseg_jax.methods.clip.cosegment import cosegment, like_reference, position_weights
from tests.parity.golden import Golden, channels_last
from tests.parity.table import Report


def check_reco(report: Report, golden: Golden) -> None:
    """Weights of positions, then seeds and references of both behaviours."""
    features = jnp.asarray(channels_last(golden["in/features"]))
    attention, contexts = jnp.asarray(golden["in/text_attention"]), jnp.asarray(golden["in/context"])
    weights = position_weights(features, attention, contexts)
    report.array("weights", weights, golden["out/weights"])
    for pictures in ("intended", "repository"):
        found = cosegment(features, weights, pictures)
        report.exact(f"{pictures}_seed", found.seeds, golden[f"out/{pictures}_seed"])
        report.array(f"{pictures}_reference", found.reference, golden[f"out/{pictures}_reference"])
    query = jnp.asarray(channels_last(golden["in/query"]))
    scores = like_reference(query, jnp.asarray(golden["out/intended_reference"]))
    report.array("query_score", scores, golden["out/query_score"])


RECO_CASES = {"reco_cosegment": check_reco}
