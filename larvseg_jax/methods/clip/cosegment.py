"""What pictures of one class have in common: ReCo's co-segmentation (Shin et al., NeurIPS 2022).

Letters: n pictures that a CLIP has found for a class, h x w their grids, d width of dense features (not normalised, of
any network), c contexts, classes such as sky and road that stand around others.
"""

from __future__ import annotations

from typing import Literal, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Int

from larvseg_jax.models.clip import normalised
from larvseg_jax.models.precision import precise_einsum

Pictures = Literal["intended", "repository"]
"""Where the best position of picture i (from 0) is looked for: in itself, as the paper says, or in the pictures i to
2 i, as the published code has it by a slice that ends too late."""

_TEXT_SCALE = 10.0


class Cosegmented(NamedTuple):
    """What pictures have in common.

    Attributes:
      seeds: of each picture the position, row by row, that is most like the best of all pictures.
      reference: the unit vector that stands for the class.
    """

    seeds: Int[Array, " n"]
    reference: Float[Array, " d"]


def text_attention(dense: Float[Array, "n h w e"], text: Float[Array, " e"]) -> Float[Array, "n h w"]:
    """sigmoid(10 cosine) of CLIP's dense features (`ClipMethod.embed`) and a class's text vector."""
    return jax.nn.sigmoid(_TEXT_SCALE * precise_einsum("nhwe,e->nhw", normalised(dense), normalised(text)))


def position_weights(
    features: Float[Array, "n h w d"], attention: Float[Array, "n h w"], contexts: Float[Array, "c d"]
) -> Float[Array, "n h w"]:
    """How much a position may say: the text attention, less where it is like a context's reference."""
    like = jax.nn.sigmoid(precise_einsum("nhwd,cd->nhwc", normalised(features), normalised(contexts)))
    return attention * jnp.prod(1.0 - like, axis=-1)


def cosegment(
    features: Float[Array, "n h w d"], weights: Float[Array, "n h w"], pictures: Pictures = "intended"
) -> Cosegmented:
    """The seeds of pictures and the reference vector of what they have in common.

    A position is the better, the more like it is, on the mean over pictures, to the best position of each of them,
    where cosines count by the weights of the positions they are with. The reference is the unit mean of the seeds'
    features.
    """
    n, h, w, d = features.shape
    flat = features.reshape(n * h * w, d)
    unit = normalised(flat)
    cosines = precise_einsum("pd,qd->pq", unit, unit) * weights.reshape(1, -1)
    best = jnp.max(cosines.reshape(n * h * w, n, h * w), axis=-1)
    if pictures == "repository":
        first, other = np.arange(n)[:, None], np.arange(n)[None]
        looked_at = (first <= other) & (other <= 2 * first)
        best = jnp.max(jnp.where(looked_at[None], best[:, None], -jnp.inf), axis=-1)
    seeds = jnp.argmax(jnp.mean(best, axis=1).reshape(n, h * w), axis=1)
    found = jnp.take_along_axis(features.reshape(n, h * w, d), seeds[:, None, None], axis=1)[:, 0]
    return Cosegmented(seeds, normalised(jnp.mean(found, axis=0)))


def like_reference(features: Float[Array, "b h w d"], reference: Float[Array, " d"]) -> Float[Array, "b h w"]:
    """sigmoid(cosine) with a class's reference; ReCo's score is its enlarged map times the text attention."""
    return jax.nn.sigmoid(precise_einsum("bhwd,d->bhw", normalised(features), reference))
