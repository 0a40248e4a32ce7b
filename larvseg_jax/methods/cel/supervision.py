"""What a stream's pictures teach the proposals: one matching of masks and one of classes, and the losses (Eq. 8).

Everything is taken at every output of the decoder, as in Mask2Former. Letters: o outputs, b pictures, q queries,
k label slots of a picture, c classes of the stream, p points, e width of the text.
"""

from __future__ import annotations

from typing import NamedTuple

import jax
import jax.numpy as jnp
from jax import lax
from jaxtyping import Array, Bool, Float, Int

from larvseg_jax.methods.cel.class_losses import class_loss, rank_loss
from larvseg_jax.methods.cel.mask_losses import MaskLosses, losses_of_pairs, no_object_loss
from larvseg_jax.methods.cel.matching import (
    Matching,
    class_cost,
    fitness,
    label_of_query,
    mask_cost,
    match,
    of_matched,
)
from larvseg_jax.methods.cel.network import Proposed
from larvseg_jax.methods.cel.options import MaskConfig, MatchingConfig, Options
from larvseg_jax.methods.cel.points import sample_features, sample_labelled, sample_masks
from larvseg_jax.models.mask_decoder.decoder import masks_of
from larvseg_jax.models.precision import precise_einsum
from larvseg_jax.vocabulary import IGNORE_LABEL


class Labels(NamedTuple):
    """What is known of pictures.

    Attributes:
      pixels: the class of each pixel of the loss grid; IGNORE_LABEL where none is taught.
      tags: the classes of each picture, filled up with IGNORE_LABEL; those in `pixels` are among them.
      counted: False for pictures that only fill up.
    """

    pixels: Int[Array, "b h w"]
    tags: Int[Array, "b k"]
    counted: Bool[Array, " b"]

    @property
    def present(self) -> Bool[Array, "b k"]:
        """Slots with a class."""
        return (self.tags != IGNORE_LABEL) & self.counted[:, None]

    @property
    def masked(self) -> Bool[Array, "b k"]:
        """Slots with a class that has a mask in the picture."""
        flat = self.pixels.reshape(len(self.pixels), 1, -1)
        return self.present & jnp.any(flat == self.tags[..., None], axis=-1)


class Losses(NamedTuple):
    """Of each output, without weights; and the share of the labels that their queries name, at each output."""

    classes: Float[Array, " o"]
    masks: MaskLosses
    rank: Float[Array, " o"]
    named: Float[Array, " o"]

    def total(self, config: Options) -> Float[Array, ""]:
        """The sum over the outputs of Eq. 8."""
        mask, rank = config.mask, self.rank if config.rank.outputs == "all" else self.rank[-1:]
        of_masks = mask.ce_weight * self.masks.ce + mask.dice_weight * self.masks.dice
        return jnp.sum(config.classes.weight * self.classes + of_masks) + config.rank.weight * jnp.sum(rank)


def losses_of(
    proposed: Proposed,
    text: Float[Array, "c e"],
    background: Float[Array, " e"],
    labels: Labels,
    key: Array,
    config: Options,
) -> Losses:
    """The losses of a stream's pictures.

    Args:
      proposed: of the network.
      text: unit vectors of the stream's classes.
      background: the vector of "no object".
      labels: of the pictures.
      key: of the points.
      config: which losses.
    """
    similarity = precise_einsum("obqe,ce->obqc", proposed.vectors, text)
    alone = similarity
    if config.classes.unmatched == "background":
        other = precise_einsum("obqe,e->obq", proposed.vectors, background / jnp.linalg.norm(background))
        similarity = jnp.concatenate([similarity, other[..., None]], axis=-1)
    of_masks, of_classes = matchings(proposed, similarity, labels, jax.random.fold_in(key, 0), config)
    wanted = label_of_query(of_classes, labels.tags, proposed.vectors.shape[2])
    logits = similarity / config.temperature
    if config.classes.unmatched == "background":
        classes = no_object_loss(logits, wanted, labels.counted, config.classes.background_weight)
    else:
        classes = class_loss(logits, wanted, labels.counted, config.classes)
    if config.rank.weight:
        rank = rank_loss(alone, labels.tags, labels.counted, config.rank, config.temperature)
    else:
        rank = jnp.zeros_like(classes)
    masks = losses_of_masks(proposed, of_masks, labels, jax.random.fold_in(key, 1), config.mask)
    return Losses(classes, masks, rank, lax.stop_gradient(_named(logits, wanted)))


def matchings(
    proposed: Proposed,
    similarity: Float[Array, "o b q _c"],
    labels: Labels,
    key: Array,
    config: Options,
) -> tuple[Matching, Matching]:
    """The matching of masks and that of classes, from one call of the assignment. No gradient."""
    options: MatchingConfig = config.matching
    proposed, similarity = lax.stop_gradient((proposed, similarity))
    of_classes = class_cost(fitness(similarity, options.class_cost, config.temperature), labels.tags)
    of_masks = _mask_costs(proposed, labels, key, config.mask)
    present, masked = (jnp.broadcast_to(x[None], (len(similarity), *x.shape)) for x in (labels.present, labels.masked))
    if options.classes == "unpaired":
        found = match(jnp.stack([of_masks, of_classes]), jnp.stack([masked, present]))
        return Matching(found.query[0], found.matched[0]), Matching(found.query[1], found.matched[1])
    cost = options.class_weight * of_classes + jnp.where(masked[..., None, :], of_masks, 0.0)
    found = match(cost, masked if options.classes == "paired" else present)
    return found._replace(matched=found.matched & masked), found


def _mask_costs(proposed: Proposed, labels: Labels, key: Array, config: MaskConfig) -> Float[Array, "o b q k"]:
    """Of every query and label, at points that all masks of a picture share."""
    points = draws(key, len(labels.pixels), (config.points, 2))
    targets = sample_masks(labels.pixels, labels.tags, points[:, None])
    weight = None if config.where == "anywhere" else sample_labelled(labels.pixels, points[:, None])
    features = sample_features(proposed.mask_features, points)
    logits = precise_einsum("obqm,bpm->obqp", proposed.mask_vectors, features)
    shared, weights = jax.tree.map(lambda of: jnp.broadcast_to(of[None], (len(logits), *of.shape)), (targets, weight))
    return mask_cost(logits, shared, ce=config.ce_weight, dice=config.dice_weight, weight=weights)


def losses_of_masks(
    proposed: Proposed, matching: Matching, labels: Labels, key: Array, config: MaskConfig
) -> MaskLosses:
    """Of matched pairs, each at points of its own: three quarters where the mask is least certain.

    No other query's mask is ever made.
    """
    o, b, k = matching.query.shape
    anywhere = config.points // 4
    drawn = draws(key, b, (o, k, anywhere + config.candidates * config.points, 2))
    drawn = jnp.swapaxes(drawn, 0, 1)
    candidates, others = drawn[..., anywhere:, :], drawn[..., :anywhere, :]
    of_points = (candidates, others, config.points, config.kind, config.where)
    logits = masks_of(of_matched(proposed.mask_vectors, matching), proposed.mask_features)
    return losses_of_pairs(logits, matching, labels.pixels, labels.tags, *of_points)


def draws(key: Array, pictures: int, shape: tuple[int, ...]) -> Float[Array, "{pictures} ..."]:
    """Uniform draws of `shape` for each picture: those of a picture do not depend on how many there are."""
    keys = jax.vmap(lambda picture: jax.random.fold_in(key, picture))(jnp.arange(pictures))
    return jax.vmap(lambda own: jax.random.uniform(own, shape))(keys)


def _named(logits: Float[Array, "o b q c"], wanted: Int[Array, "o b q"]) -> Float[Array, " o"]:
    """The share of the matched queries whose best class is their label."""
    matched = wanted != IGNORE_LABEL
    right = matched & (jnp.argmax(logits, axis=-1) == wanted)
    return jnp.sum(right, axis=(1, 2)) / jnp.maximum(jnp.sum(matched, axis=(1, 2)), 1)
