"""L_cluster (ViL-Seg, Eq. 6 to 8): a patch is to fall into the same cluster after a change of colours and sides."""

from __future__ import annotations

from typing import Literal

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from larvseg_jax.models.precision import precise_einsum

Over = Literal["batch", "picture"]
"""Of which patches I(J) is: of all pictures together, as Eq. 7 has it, or of those of each picture."""

_LEAST = 1e-12  # what pairs of clusters that never occur are taken to have; their term is 0 all the same
_LEAST_PRODUCT = 1e-18  # of two marginals; its square is still a float32, as the gradient of a quotient needs


def joint_distribution(
    logits: Float[Array, "*batch c"],
    transformed: Float[Array, "*batch c"],
    weights: Float[Array, "*batch"],
    *,
    symmetric: bool = False,
) -> Float[Array, "c c"]:
    """J (Eq. 7): how often clusters (row, column) are those of a patch before and after the transformation.

    `Paper:` divided by B H W D, which does not make it sum to 1; here by the number of patches, those of weight 0 left
    out. Of all pictures of the batch, on however many devices. `symmetric`: pairs count both ways, as in IIC.
    """
    before = jax.nn.softmax(logits) * weights[..., None]
    pairs = precise_einsum("nc,nd->cd", _flat(before), _flat(jax.nn.softmax(transformed)))
    joint = pairs / jnp.maximum(jnp.sum(pairs), _LEAST)
    return (joint + joint.T) / 2 if symmetric else joint


def clusters_in_each(logits: Float[Array, "b h w c"]) -> Float[Array, " b"]:
    """How many clusters the patches of each picture are in."""
    members = jax.nn.one_hot(jnp.argmax(logits, axis=-1), logits.shape[-1], dtype=logits.dtype)
    return jnp.sum(jnp.max(members, axis=(1, 2)), axis=-1)


def mutual_information(joint: Float[Array, "c c"], marginal_weight: float = 1.0) -> Float[Array, ""]:
    """I(J) = sum J ln(J / (J_row J_column)) in nats; L_cluster is -I(J) (Eq. 8). The most is ln C.

    `marginal_weight`: exponent of both marginals (IIC's lambda); above 1 it pulls clusters to be of one size.
    """
    rows, columns = jnp.sum(joint, axis=1), jnp.sum(joint, axis=0)
    occurs = jnp.maximum(joint, _LEAST)
    apart = jnp.maximum(rows[:, None] * columns[None], _LEAST_PRODUCT)
    # The logarithm of a ratio, not a difference of logarithms: I(J) is far smaller than these. Both J and the product
    # of its marginals sum to 1; taken off, they take with them what rounding makes of that sum.
    information = jnp.sum(occurs * jnp.log(occurs / apart) - (occurs - apart))
    if marginal_weight == 1.0:
        return information
    return information - (marginal_weight - 1.0) * jnp.sum(occurs * jnp.log(apart))


def cluster_loss(
    logits: Float[Array, "*batch c"],
    transformed: Float[Array, "*batch c"],
    weights: Float[Array, "*batch"],
    *,
    symmetric: bool = False,
    marginal_weight: float = 1.0,
    over: Over = "batch",
) -> tuple[Float[Array, ""], Float[Array, "c c"]]:
    """L_cluster = -I(J) (Eq. 8, of which `Paper:` prints the sign both ways), and J; arguments as above.

    `over`: "batch", J of all patches; "picture", I(J) of the patches of each picture, the first axis, and of both the
    mean over the pictures: then clusters cannot be of whole pictures.
    """

    def of(
        logits: Float[Array, "*own c"], transformed: Float[Array, "*own c"], weights: Float[Array, "*own"]
    ) -> tuple[Float[Array, ""], Float[Array, "c c"]]:
        joint = joint_distribution(logits, transformed, weights, symmetric=symmetric)
        return -mutual_information(joint, marginal_weight), joint

    if over == "batch":
        return of(logits, transformed, weights)
    losses, joints = jax.vmap(of)(logits, transformed, weights)
    counted = jnp.any(weights.reshape(len(weights), -1) > 0, axis=1).astype(weights.dtype)
    share = counted / jnp.maximum(jnp.sum(counted), 1.0)
    return precise_einsum("b,b->", share, losses), precise_einsum("b,bcd->cd", share, joints)


def _flat(x: Float[Array, "*batch c"]) -> Float[Array, "n c"]:
    return x.reshape(-1, x.shape[-1])
