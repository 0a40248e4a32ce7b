"""From the queries' classes and masks to scores of the pixels (CEL, Eq. 4; Mask2Former), alone or with a CLIP's help.

The help: what a CLIP says of the crop of each proposal, blended in as Xu et al. do ("Simple Baseline", which CEL
follows), or as ZegFormer does.
"""

from __future__ import annotations

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float

from larvseg_jax.models.precision import precise_einsum

_ZEGFORMER_SHARE = 2 / 3  # of the query's own probability for seen classes, and of CLIP's for unseen ones
_ZEGFORMER_PENALTY = 0.1  # taken off the scores of seen classes


def semantic_scores(
    probabilities: Float[Array, "*batch q c"], mask_logits: Float[Array, "*batch q h w"]
) -> Float[Array, "*batch h w c"]:
    """sum_q p_q(c) sigmoid(M_q) (Eq. 4): the highest is the pixel's class.

    CEL: p = softmax(r / tau) over all classes. Mask2Former: `without_no_object` of its class logits.
    """
    return precise_einsum("...qc,...qhw->...hwc", probabilities, jax.nn.sigmoid(mask_logits))


def without_no_object(logits: Float[Array, "*batch c"]) -> Float[Array, "*batch d"]:
    """Softmax over all classes, of which the last one, "no object", is then left out."""
    return jax.nn.softmax(logits)[..., :-1]


def simple_ensemble(
    probabilities: Float[Array, "*batch q c"],
    clip: Float[Array, "*batch q c"],
    valid: Bool[Array, "*batch q"],
    seen: Bool[Array, " c"],
    weight: float,
) -> Float[Array, "*batch q c"]:
    """p^w clip^(1 - w) for seen classes, p^(1 - w) clip^w for the others; not normalised anew.

    Args:
      probabilities: of the queries.
      clip: CLIP's of the crops: softmax of 100 cosines over the same classes.
      valid: where False there is no crop, and CLIP's factor is 1.
      seen: classes with masks in training; none of an open vocabulary.
      weight: w. `Paper:` 0.8 on COCO-Stuff, 0.7 on VOC.
    """
    clip = jnp.where(valid[..., None], clip, 1.0)
    own = _for_last_axis(jnp.where(seen, weight, 1 - weight).astype(clip.dtype), clip.ndim)
    return probabilities**own * clip ** (1 - own)


def zegformer_ensemble(
    probabilities: Float[Array, "*batch q c"],
    clip: Float[Array, "*batch q c"],
    valid: Bool[Array, "*batch q"],
    seen: Bool[Array, " c"],
) -> Float[Array, "*batch q c"]:
    """The same with w = 2/3 and, of seen classes, the mean of CLIP's probabilities in the place of each."""
    of_seen = _for_last_axis(seen, clip.ndim)
    mean = jnp.sum(jnp.where(of_seen, clip, 0.0), axis=-1, keepdims=True) / jnp.maximum(jnp.sum(seen), 1).astype(
        clip.dtype
    )
    return simple_ensemble(probabilities, jnp.where(of_seen, mean, clip), valid, seen, _ZEGFORMER_SHARE)


def zegformer_calibrated(scores: Float[Array, "*batch c"], seen: Bool[Array, " c"]) -> Float[Array, "*batch c"]:
    """ZegFormer's scores of the pixels, those of seen classes lowered."""
    return scores - _for_last_axis(jnp.where(seen, _ZEGFORMER_PENALTY, 0.0).astype(scores.dtype), scores.ndim)


def _for_last_axis(of_classes: Array, ndim: int) -> Array:
    return of_classes.reshape(*(1,) * (ndim - 1), -1)
