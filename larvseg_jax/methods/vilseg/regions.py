"""From clusters to classes (ViL-Seg, Sec. 3.5): a region is the patches of one cluster, and its class the nearest text.

A cluster without patches has no region, no class, and wins nothing.
"""

from __future__ import annotations

from typing import Literal, NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Int

from larvseg_jax.models.clip import normalised
from larvseg_jax.models.precision import precise_einsum

NO_CLASS = -1


class Regions(NamedTuple):
    """What the clusters of some pictures have.

    Attributes:
      clusters: of each patch.
      counts: patches of each cluster.
      means: mean embedding of these; 0 without any.
    """

    clusters: Int[Array, "b h w"]
    counts: Float[Array, "b c"]
    means: Float[Array, "b c d"]


def regions_of(pixels: Float[Array, "b h w d"], logits: Float[Array, "b h w c"], *, normalise: bool = False) -> Regions:
    """The regions of each picture: M = argmax Phi_c, r_c = mean of the embeddings where M = c.

    `normalise`: the embeddings are made unit vectors before. `Paper:` no.
    """
    clusters = jnp.argmax(logits, axis=-1)
    members = jax.nn.one_hot(clusters, logits.shape[-1], dtype=pixels.dtype)
    counts = jnp.sum(members, axis=(1, 2))
    sums = precise_einsum("bhwc,bhwd->bcd", members, normalised(pixels) if normalise else pixels)
    return Regions(clusters, counts, sums / jnp.maximum(counts, 1.0)[..., None])


def region_cosines(regions: Regions, texts: Float[Array, "n d"]) -> Float[Array, "b c n"]:
    """cos(r_c, text_n); 0 for clusters without patches."""
    return precise_einsum("bcd,nd->bcn", normalised(regions.means), normalised(texts))


def region_classes(regions: Regions, cosines: Float[Array, "b c n"]) -> Int[Array, "b c"]:
    """The class of each cluster; NO_CLASS for those without patches."""
    return jnp.where(regions.counts > 0, jnp.argmax(cosines, axis=-1), NO_CLASS)


def occupied(logits: Float[Array, "b h w c"], regions: Regions) -> Float[Array, "b h w c"]:
    """The logits, those of clusters without patches so low that they win nowhere between two patches either."""
    least = jnp.min(logits, axis=-1, keepdims=True) - 1.0
    return jnp.where(regions.counts[:, None, None] > 0, logits, least)


def class_scores(
    logits: Float[Array, "b h w c"],
    regions: Regions,
    cosines: Float[Array, "b c n"],
    upsample: Literal["logits", "labels"],
) -> Float[Array, "b h w n"]:
    """Scores of the classes on the patch grid, of which the highest is the class of the patch's cluster.

    With "labels" a patch has the cosines of its region. With "logits" a class has the highest logit of its clusters,
    and if it has none, less than any: so what is resized to the picture's size are the clusters' logits, as long as
    no two clusters have one class. Where two do, the class may gain up to half a patch along a border between them.
    """
    if upsample == "labels":
        members = jax.nn.one_hot(regions.clusters, logits.shape[-1], dtype=cosines.dtype)
        return precise_einsum("bhwc,bcn->bhwn", members, cosines)
    count = cosines.shape[-1]

    def of_picture(logits: Float[Array, "h w c"], classes: Int[Array, " c"]) -> Float[Array, "h w n"]:
        least = jnp.min(logits, axis=-1) - 1.0
        scores = jnp.broadcast_to(least[None], (count, *least.shape))
        nowhere = jnp.where(classes == NO_CLASS, count, classes)
        return jnp.moveaxis(scores.at[nowhere].max(jnp.moveaxis(logits, -1, 0), mode="drop"), 0, -1)

    return jax.vmap(of_picture)(logits, region_classes(regions, cosines))
