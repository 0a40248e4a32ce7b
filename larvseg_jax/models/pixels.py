"""The pixels a backbone sees: batches are normalised in one way, pretrained weights may know another."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Literal

import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Float32, Int, Shaped, UInt8

from data_pipelines.rows import extent_of
from data_pipelines.transforms import MEAN, STD

Pixels = Literal["imagenet", "half", "clip"]

_MEAN_AND_STD = {  # levels of 0 to 255
    "half": (np.full(3, 127.5), np.full(3, 127.5)),
    "clip": (
        255 * np.array([0.48145466, 0.4578275, 0.40821073]),
        255 * np.array([0.26862954, 0.26130258, 0.27577711]),
    ),
}


def normalised_batch(arrays: Mapping[str, Shaped[Array, "..."]]) -> dict[str, Shaped[Array, "..."]]:
    """What a step gets of a stream as methods read it: pictures of levels are normalised, all else stays."""
    found = dict(arrays)
    for name, array in arrays.items():
        if array.dtype == jnp.uint8:
            found[name] = normalised_pictures(array, found.pop(extent_of(name), None))
    return found


def normalised_pictures(
    levels: UInt8[Array, "b *k height width 3"], extent: Int[Array, "b 2"] | None = None
) -> Float32[Array, "b *k height width 3"]:
    """(level - MEAN) / STD of ImageNet, the pixels of all batches; 0, the mean colour, beyond `extent` if it is given.

    Args:
      extent: height and width of each picture, from its top left, that a photo fills.
    """
    mean, std = (jnp.asarray(x, jnp.float32).reshape((1,) * (levels.ndim - 1) + (3,)) for x in (MEAN, STD))
    images = (levels.astype(jnp.float32) - mean) / std
    if extent is None:
        return images
    height, width = levels.shape[1:3]
    inside = (jnp.arange(height)[None] < extent[:, :1])[:, :, None] & (jnp.arange(width)[None] < extent[:, 1:])[:, None]
    return jnp.where(inside[..., None], images, jnp.zeros_like(images))


def mean_colour(pixels: Pixels) -> Float32[np.ndarray, "3"]:
    """The mean colour of pretrained weights, as batches have it."""
    mean = MEAN if pixels == "imagenet" else _MEAN_AND_STD[pixels][0]
    return ((mean - MEAN) / STD).astype(np.float32)


def own_pixels(images: Float[Array, "b height width 3"], pixels: Pixels) -> Float[Array, "b height width 3"]:
    """Pictures as batches have them, (level - MEAN) / STD of ImageNet, normalised in another way.

    An affine map per channel: what has been filled up with zeros, the mean colour of ImageNet, stays that colour.
    """
    if pixels == "imagenet":
        return images
    mean, std = _MEAN_AND_STD[pixels]
    scale, shift = (jnp.asarray(x, images.dtype)[None, None, None] for x in (STD / std, (MEAN - mean) / std))
    return images * scale + shift
