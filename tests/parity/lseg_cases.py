"""lseg_head: projection, cosines over 0.07 and cross entropy of the labelled pixels."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
from flax import linen as nn

from larvseg_jax.methods.lseg import Config
from larvseg_jax.methods.pixel_loss import pixel_cross_entropy
from larvseg_jax.models.cosine_head import cosine_scores, unit
from larvseg_jax.text.vectors import TextClasses
from larvseg_jax.vocabulary import IGNORE_LABEL
from tests.parity.golden import Golden
from tests.parity.table import Report


def check_lseg(report: Report, golden: Golden) -> None:
    """Logits, loss and the gradient of the projection."""
    text = jnp.asarray(golden["in/text"])
    classes, width = text.shape
    temperature = Config(TextClasses("names.npz", width)).temperature
    label = np.where(golden["in/labels"] == 255, IGNORE_LABEL, golden["in/labels"])

    def logits(kernel):
        params = {"kernel": kernel, "bias": jnp.asarray(golden["in/bias"])}
        projected = nn.Dense(width).apply({"params": params}, jnp.asarray(golden["in/features"]))
        return cosine_scores(unit(projected), unit(text)) / temperature

    def loss(kernel):
        valid = jnp.ones(len(label), bool)
        return pixel_cross_entropy(logits(kernel), jnp.ones(classes), jnp.asarray(label), valid, mean_over="valid")

    kernel = jnp.asarray(golden["in/kernel"])
    value, gradient = jax.value_and_grad(loss)(kernel)
    report.array("logits", logits(kernel), golden["out/logits"])
    report.loss("loss", value, golden["out/loss"], 1e-5)
    report.array("grad_kernel", gradient, golden["grad/kernel"], 1e-4)
