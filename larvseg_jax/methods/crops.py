"""What an image-text model says of proposals: their boxes, cut out and resized, and the classes of these crops.

CEL, Sec. 3.4 (Eq. 9 and 10): labels of photos; and CLIP's part in an ensemble at the test.
"""

from __future__ import annotations

from typing import Literal

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int32

from larvseg_jax.methods.method import Images, Reader
from larvseg_jax.methods.pixel_loss import NEVER
from larvseg_jax.models.clip import normalised
from larvseg_jax.models.pixels import mean_colour
from larvseg_jax.models.precision import precise_einsum
from larvseg_jax.models.resize import bicubic_crop_matrix, resize_bilinear

Fill = Literal["none", "mean"]
"""Crops as they are, or with all outside the mask in the mean colour of the image-text model."""


def crop_scores(
    reader: Reader,
    text: Float[Array, "c d"],
    images: Images,
    masks: Bool[Array, "b q height width"],
    fill: Fill,
    competing: Bool[Array, " c"] | None = None,
) -> tuple[Float[Array, "b q c"], Bool[Array, "b q"]]:
    """`class_scores` of the proposals' crops, and which proposals have one; the scores of others say nothing.

    All crops are looked at together: b * q passes of the image tower.
    """
    colour = jnp.asarray(mean_colour(reader.vit.pixels)) if fill == "mean" else None
    crops, valid = jax.vmap(lambda image, of: crops_of(image, of, reader.vit.image_size, colour))(images, masks)
    vectors = reader.method.image_vectors(reader.params, crops.reshape(-1, *crops.shape[2:]))
    scores = class_scores(vectors, text, reader.method.logit_scale(reader.params), competing)
    return scores.reshape(*valid.shape, -1), valid


def class_scores(
    images: Float[Array, "q d"],
    text: Float[Array, "c d"],
    scale: Float[Array, ""],
    competing: Bool[Array, " c"] | None = None,
) -> Float[Array, "q c"]:
    """s_i = softmax over classes of scale * cosine (Eq. 9).

    Args:
      images: vectors of the proposals' crops.
      text: vectors of the classes in question alone; others do not compete.
      scale: of the cosines. `Paper:` none is printed, and a softmax over bare cosines stays far below 0.99.
      competing: where False the score is 0; None: all compete.
    """
    logits = scale * precise_einsum("qd,cd->qc", normalised(images), normalised(text))
    return jax.nn.softmax(logits if competing is None else jnp.where(competing[None], logits, NEVER))


def masks_on_pixels(logits: Float[Array, "b q h w"], size: tuple[int, int]) -> Bool[Array, "b q height width"]:
    """Where sigmoid > 0.5 on the pixels of a window, `size` = (height, width)."""
    return jnp.moveaxis(resize_bilinear(jnp.moveaxis(logits, 1, -1), size), -1, 1) > 0


def boxes_of(masks: Bool[Array, "q h w"]) -> Int32[Array, "q 4"]:
    """The box of each mask: left, top, right, bottom in pixels, right and bottom exclusive; zeros if it is empty."""
    ends = [_ends(jnp.any(masks, axis=axis)) for axis in (1, 2)]
    return jnp.stack([ends[0][0], ends[1][0], ends[0][1], ends[1][1]], axis=1)


def _ends(taken: Bool[Array, "q n"]) -> tuple[Int32[Array, " q"], Int32[Array, " q"]]:
    """The first place that is taken, and the one behind the last."""
    n = taken.shape[1]
    first = jnp.argmax(taken, axis=1).astype(jnp.int32)
    behind = (n - jnp.argmax(taken[:, ::-1], axis=1)).astype(jnp.int32)
    return first, jnp.where(jnp.any(taken, axis=1), behind, 0)


def crops_of(
    image: Float[Array, "h w 3"],
    masks: Bool[Array, "q h w"],
    side: int,
    fill: Float[Array, "3"] | None = None,
) -> tuple[Float[Array, "q {side} {side} 3"], Bool[Array, " q"]]:
    """The boxes of proposals, stretched to squares; and which proposals have one, the crops of others being zeros.

    Bicubic, a = -0.75, without antialiasing, samples beyond a box being those at its border.

    Args:
      image: a picture.
      masks: of its proposals, on its pixels.
      side: of the crops, pixels.
      fill: the colour that all outside a mask gets before it is cut out; None: its box is cut out as it is.
    """
    left, top, right, bottom = boxes_of(masks).T
    rows = bicubic_crop_matrix(top, bottom, image.shape[0], side)
    columns = bicubic_crop_matrix(left, right, image.shape[1], side)
    if fill is None:
        found = precise_einsum("qyh,hwc,qxw->qyxc", rows, image, columns)
    else:
        filled = jnp.where(masks[..., None], image[None], fill[None, None, None])
        found = precise_einsum("qyh,qhwc,qxw->qyxc", rows, filled, columns)
    return found, right > left
