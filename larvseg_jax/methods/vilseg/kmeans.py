"""K-means on the patches of one picture: what the clustering head is compared with (ViL-Seg, Table 2)."""

from __future__ import annotations

import jax
import jax.numpy as jnp
from jax import lax
from jaxtyping import Array, Float

from larvseg_jax.models.precision import precise_einsum

ITERATIONS = 10


def kmeans(key: Array, points: Float[Array, "n d"], clusters: int, iterations: int = ITERATIONS) -> Float[Array, "c d"]:
    """Centres after Lloyd's iterations from a k-means++ start; a cluster that loses all its points stays where it is.

    `Paper:` says no more than K-means; the number of iterations and the start are ours.
    """

    def improved(_: Array, centres: Float[Array, "c d"]) -> Float[Array, "c d"]:
        members = jax.nn.one_hot(jnp.argmax(closeness(points, centres), axis=-1), clusters, dtype=points.dtype)
        counts = jnp.sum(members, axis=0)[:, None]
        return jnp.where(counts > 0, precise_einsum("nc,nd->cd", members, points) / jnp.maximum(counts, 1.0), centres)

    return lax.fori_loop(0, iterations, improved, _far_apart(key, points, clusters))


def closeness(points: Float[Array, "*batch d"], centres: Float[Array, "c d"]) -> Float[Array, "*batch c"]:
    """Logits of the clusters: 2 x.c - c.c, highest for the nearest centre, and linear in the point."""
    squares = jnp.sum(centres * centres, axis=-1).reshape((1,) * (points.ndim - 1) + (-1,))
    return 2.0 * precise_einsum("...d,cd->...c", points, centres) - squares


def _far_apart(key: Array, points: Float[Array, "n d"], clusters: int) -> Float[Array, "c d"]:
    """k-means++: points drawn one by one, each by its squared distance to the nearest of those drawn before."""

    def draw(
        drawn: tuple[Float[Array, "c d"], Float[Array, " n"]], at: tuple[Array, Array]
    ) -> tuple[tuple[Float[Array, "c d"], Float[Array, " n"]], None]:
        (centres, distance), (i, own_key) = drawn, at
        point = points[jax.random.categorical(own_key, jnp.log(jnp.maximum(distance, 1e-30)))]
        nearer = jnp.minimum(distance, jnp.sum((points - point[None]) ** 2, axis=-1))
        return (centres.at[i].set(point), nearer), None

    start = jnp.zeros((clusters, points.shape[1]), points.dtype), jnp.ones(points.shape[0], points.dtype)
    # The first one is drawn by equal distances: they are no bound for the next, so they are larger than any.
    far = start[0], start[1] * jnp.finfo(points.dtype).max
    (centres, _), _ = lax.scan(draw, far, (jnp.arange(clusters), jax.random.split(key, clusters)))
    return centres
