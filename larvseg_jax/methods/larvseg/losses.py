"""L_seg, L_cls and L_aux as pure functions (docs/method.md, section 5).

Letters: b images, l label slots of an image, p = h*w patches, H x W loss grid, d feature width,
n classes of the stream. Tags are columns, -1 where an image has fewer.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int

from larvseg_jax.methods.pixel_loss import log_count, pick, pixel_cross_entropy
from larvseg_jax.models.cosine_head import ClassTable, column_shares, inverse_std, mean_vector, standardised_logits
from larvseg_jax.models.precision import precise_einsum
from larvseg_jax.vocabulary import IGNORE_LABEL


def segmentation_loss(
    patches: Float[Array, "b h w d"],
    table: ClassTable,
    label: Int[Array, "b H W"],
    valid: Bool[Array, " b"],
    mean_over: str = "all",
) -> Float[Array, ""]:
    """L_seg: pixel cross entropy of the classifier's logits (method 5.2)."""
    return pixel_cross_entropy(standardised_logits(patches, table), table.multiplicity, label, valid, mean_over)


def pooled_classifier(
    patches: Float[Array, "b p d"], table: ClassTable
) -> Callable[[Float[Array, "b l p"]], Float[Array, "b l n"]]:
    """The classifier on pooled pixels: pooling weights -> logits averaged over the loss grid (method 5.5, exact).

    Logits are never built per pixel. `pooling` holds the weights of the loss grid carried back to the patches, see
    `pooling_weights`. Everything between p and the pooled logit is linear in the classes once the standard deviation
    of each pixel's scores is known, and that is a quadratic form: var_n s(p) = p^T G p. Made once, used by L_cls and
    L_aux.

    `Paper:` features are pooled and then classified; L_aux has softmax(S A / tau). Here, as in the authors' code,
    standardised logits are averaged, and L_aux takes the plain mean of A z, without tau.
    """
    share = column_shares(table.multiplicity)
    mean = mean_vector(table.vectors, share)
    scale = inverse_std(score_variance(patches, table.vectors, share))

    def pooled(pooling: Float[Array, "b l p"]) -> Float[Array, "b l n"]:
        pooled_patch = precise_einsum("blp,bp,bpd->bld", pooling, scale, patches)
        scores = precise_einsum("bld,nd->bln", pooled_patch, table.vectors)
        centred = scores - precise_einsum("bld,d->bl", pooled_patch, mean)[..., None]
        return table.gamma * centred + table.beta * jnp.sum(pooling, axis=-1, keepdims=True)

    return pooled


@jax.custom_vjp
def score_variance(
    patches: Float[Array, "b p d"], vectors: Float[Array, "n d"], share: Float[Array, " n"]
) -> Float[Array, "b p"]:
    """var_n p.c_n = p^T G p with G = sum_n share_n (c_n - c)(c_n - c)^T, c = sum_n share_n c_n.

    `share` is a constant: it gets no gradient. The gradient is written by hand, because automatic differentiation
    does not know that G is symmetric (three products where two do, for both factors) and keeps centred copies of
    the class table.
    """
    return _score_variance(patches, vectors, share)[0]


class _VarianceParts(NamedTuple):
    """What the backward pass of `score_variance` needs; `half` is G p."""

    patches: Float[Array, "b p d"]
    vectors: Float[Array, "n d"]
    share: Float[Array, " n"]
    mean: Float[Array, " d"]
    half: Float[Array, "b p d"]


def _score_variance(
    patches: Float[Array, "b p d"], vectors: Float[Array, "n d"], share: Float[Array, " n"]
) -> tuple[Float[Array, "b p"], _VarianceParts]:
    mean = mean_vector(vectors, share)
    scaled = (vectors - mean[None]) * jnp.sqrt(share)[:, None]
    half = precise_einsum("bpd,de->bpe", patches, precise_einsum("nd,ne->de", scaled, scaled))
    return jnp.sum(half * patches, axis=-1), _VarianceParts(patches, vectors, share, mean, half)


def _score_variance_gradient(
    parts: _VarianceParts, gradient: Float[Array, "b p"]
) -> tuple[Float[Array, "b p d"], Float[Array, "n d"], Float[Array, " n"]]:
    patches, vectors, share, mean, half = parts
    doubled = 2.0 * gradient[..., None]
    to_gram = precise_einsum("bpd,bpe->de", doubled * patches, patches)
    # share (c_n - c) dG, c taken out, so that no centred table is kept or made again. Through c itself nothing
    # comes: the centred vectors add up to zero.
    to_vectors = share[:, None] * (
        precise_einsum("nd,de->ne", vectors, to_gram) - precise_einsum("d,de->e", mean, to_gram)[None]
    )
    return doubled * half, to_vectors, jnp.zeros_like(share)


score_variance.defvjp(_score_variance, _score_variance_gradient)


def pair_losses(
    pooled: Float[Array, "b k n"], tags: Int[Array, "b l"], multiplicity: Float[Array, " n"], active: Bool[Array, "b l"]
) -> Float[Array, ""]:
    """The mean of `image_label_losses` over the pairs, those not `active` counting 0."""
    losses = image_label_losses(pooled, tags, multiplicity)
    return mean_over_pairs(jnp.where(active, losses, 0.0), tags)


def image_label_losses(
    pooled: Float[Array, "b k n"], tags: Int[Array, "b l"], multiplicity: Float[Array, " n"]
) -> Float[Array, "b l"]:
    """Cross entropy of every (image, label) pair, the image's other labels left out (method 5.4).

    `pooled` has one row per label slot (L_aux) or one for all of them (L_cls). A label's column that
    stands for m identical ones leaves m - 1 of them in the denominator. Empty slots give 0.
    """
    present = tags != IGNORE_LABEL
    columns = jnp.arange(multiplicity.shape[0], dtype=tags.dtype)
    in_image = jnp.any(tags[:, :, None] == columns[None, None], axis=1)
    negatives = pooled + log_count(multiplicity[None] - in_image.astype(multiplicity.dtype))[:, None]
    negative_log_sum = jax.nn.logsumexp(negatives, axis=-1)
    target = pick(jnp.broadcast_to(pooled, (*tags.shape, pooled.shape[-1])), tags)
    return jnp.where(present, jnp.logaddexp(negative_log_sum, target) - target, 0.0)


def mean_over_pairs(losses: Float[Array, "b l"], tags: Int[Array, "b l"]) -> Float[Array, ""]:
    """Sum over the pairs / number of pairs; pairs still warming up count with loss 0 (method 5.5).

    `Original:` the mean is taken per GPU (2 images) and these means averaged; here over the whole batch.
    """
    pairs = jnp.sum(tags != IGNORE_LABEL)
    return jnp.sum(losses) / jnp.maximum(pairs, 1).astype(losses.dtype)
