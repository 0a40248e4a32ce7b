"""LarvSeg's scores as products: the standard deviation of a pixel's scores goes into its feature.

With centred class vectors, mean_n s = 0 and var_n s(p) = p^T G p, so z_n = (gamma p / std(p)) . c_n + beta.
"""

from __future__ import annotations

from jaxtyping import Array, Float

from larvseg_jax.methods.method import Vectors
from larvseg_jax.models.cosine_head import ClassTable, column_shares, inverse_std, mean_vector
from larvseg_jax.models.precision import precise_einsum


def centred_vectors(table: ClassTable) -> Vectors:
    """The classes of a table with their mean (by multiplicity) taken off; scale: gamma and the covariance G."""
    share = column_shares(table.multiplicity)
    vectors = table.vectors - mean_vector(table.vectors, share)[None]
    covariance = precise_einsum("nd,ne->de", vectors * share[:, None], vectors)
    return Vectors(vectors, table.multiplicity, table.beta, (table.gamma, covariance))


def scaled_features(patches: Float[Array, "*batch d"], classes: Vectors) -> Float[Array, "*batch d"]:
    """gamma p / std(p): its products with the centred class vectors are the standardised logits, but for beta."""
    gamma, covariance = classes.scale
    variance = precise_einsum("...d,de,...e->...", patches, covariance, patches)
    return patches * (gamma * inverse_std(variance))[..., None]
