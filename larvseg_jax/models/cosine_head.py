"""Cosine classifier with per-pixel standardisation over the classes (docs/method.md, section 3).

Letters: b images, h x w patch grid, p patches, d feature width, n classes of a stream (columns).
"""

from __future__ import annotations

from typing import NamedTuple

import jax.numpy as jnp
from flax import linen as nn
from jax import lax
from jaxtyping import Array, Float, Int

from larvseg_jax.devices.in_step import constrain
from larvseg_jax.models.precision import precise_einsum

STANDARDISE_EPSILON = 1e-5
"""Added to the variance of the scores over the classes."""


class ClassTable(NamedTuple):
    """The classes that take part, and the scale of their logits.

    Attributes:
      vectors: unit-norm projected class embeddings.
      multiplicity: how many identical columns each stands for; 0 = padding, which never wins anything.
      gamma, beta: learned scale and shift of the standardised score.
    """

    vectors: Float[Array, "n d"]
    multiplicity: Float[Array, " n"]
    gamma: Float[Array, ""]
    beta: Float[Array, ""]


class CosineHead(nn.Module):
    """Parameters of the classifier: one embedding per class of the vocabulary and two projections.

    With a text width the embeddings are text vectors: patches are projected to their space, classes are not projected.
    """

    num_classes: int
    width: int
    gamma_init: float = 1.0
    text_width: int = 0

    def setup(self) -> None:
        d, e = self.width, self.text_width or self.width
        projection = nn.initializers.normal(d**-0.5)
        self.proj_patch = self.param("proj_patch", projection, (d, e))
        if not self.text_width:
            self.proj_classes = self.param("proj_classes", projection, (d, d))
        self.class_embeddings = self.param("class_embeddings", nn.initializers.normal(0.02), (self.num_classes, e))
        self.gamma = self.param("gamma", nn.initializers.constant(self.gamma_init), ())
        self.beta = self.param("beta", nn.initializers.zeros, ())

    def patches(self, features: Float[Array, "b h w d"]) -> Float[Array, "b h w e"]:
        """Unit-norm projected patch features."""
        return unit(precise_einsum("bhwd,de->bhwe", features, self.proj_patch))

    def classes(self, rows: Int[Array, " n"] | None, multiplicity: Float[Array, " n"]) -> ClassTable:
        """The table of the classes whose embeddings lie in `rows`; None: all, in order, without moving any."""
        embeddings = self.class_embeddings if rows is None else self.class_embeddings[rows]
        projected = constrain(embeddings, "model", None)
        if not self.text_width:
            projected = precise_einsum("nd,de->ne", projected, self.proj_classes)
        return ClassTable(unit(projected), multiplicity, self.gamma, self.beta)


def unit(vectors: Float[Array, "*batch d"]) -> Float[Array, "*batch d"]:
    """Vectors divided by their Euclidean norm. `Original:` no epsilon either."""
    return vectors / jnp.linalg.norm(vectors, axis=-1, keepdims=True)


def cosine_scores(patches: Float[Array, "*batch d"], vectors: Float[Array, "n d"]) -> Float[Array, "*batch n"]:
    """Raw scores s = p . c."""
    return precise_einsum("...d,nd->...n", patches, vectors)


def standardised_logits(patches: Float[Array, "*batch d"], table: ClassTable) -> Float[Array, "*batch n"]:
    """z = gamma (s - mean_n s) / sqrt(var_n s + 1e-5) + beta, per pixel, over the classes that take part.

    `Paper:` the plain cosine, no standardisation.
    """
    scores = cosine_scores(patches, table.vectors)
    share = column_shares(table.multiplicity)
    centred = scores - _weighted_sum(scores, share)
    variance = _weighted_sum(jnp.square(centred), share)
    return table.gamma * centred / jnp.sqrt(variance + STANDARDISE_EPSILON) + table.beta


def column_shares(multiplicity: Float[Array, " n"]) -> Float[Array, " n"]:
    """The weight of each column in means over the classes: its part of all the identical columns; their sum is 1."""
    return multiplicity / jnp.sum(multiplicity)


def mean_vector(vectors: Float[Array, "n d"], share: Float[Array, " n"]) -> Float[Array, " d"]:
    """The mean class vector c = sum_n share_n c_n; p . c is the mean of a patch's scores."""
    return precise_einsum("n,nd->d", share, vectors)


def inverse_std(variance: Float[Array, "*batch"]) -> Float[Array, "*batch"]:
    """1 / sqrt(var + 1e-5); a variance that rounding made negative counts as 0."""
    return lax.rsqrt(jnp.maximum(variance, 0.0) + STANDARDISE_EPSILON)


def _weighted_sum(scores: Float[Array, "*batch n"], share: Float[Array, " n"]) -> Float[Array, "*batch 1"]:
    return precise_einsum("...n,n->...", scores, share)[..., None]
