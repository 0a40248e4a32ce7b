"""From the masks of proposals to pictures of them: their boxes, cut out and resized."""

from __future__ import annotations

import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int32

from larvseg_jax.models.precision import exact_einsum
from larvseg_jax.models.resize import bicubic_crop_matrix


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
        found = exact_einsum("qyh,hwc,qxw->qyxc", rows, image, columns)
    else:
        filled = jnp.where(masks[..., None], image[None], fill[None, None, None])
        found = exact_einsum("qyh,qhwc,qxw->qyxc", rows, filled, columns)
    return found, right > left
