"""What all views of labels share: a random crop of a photo, and lists of classes as tags."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable
from typing import Any

import numpy as np
from jaxtyping import Int32

from data_pipelines.examples import Example
from data_pipelines.rows import ArraySpec, extent_of
from data_pipelines.transforms import Crop, train_transform
from larvseg_jax.errors import DataError, UserError
from larvseg_jax.options import Count
from larvseg_jax.vocabulary import IGNORE_LABEL


@dataclasses.dataclass(frozen=True)
class CropView:
    """What all views of labels do to a photo before they look at them."""

    scale: tuple[int, int] = (2048, 512)  # resize: (long side, short side) limits in pixels, times a random ratio
    ratio_range: tuple[float, float] = (0.5, 2.0)  # of that ratio
    crop_size: Count = 512  # side of the square crop, pixels
    category_ratio: float = 0.75  # redraw a crop that one class fills beyond this share of its pixels; 1.0 = never
    downsample_rate: Count = 2  # pixels of the crop per pixel of the loss grid

    def __post_init__(self) -> None:
        if self.crop_size % self.downsample_rate:
            raise UserError(f"crop_size={self.crop_size} is not a multiple of downsample_rate={self.downsample_rate}")

    @property
    def loss_size(self) -> int:
        """Side of the loss grid."""
        return self.crop_size // self.downsample_rate

    def image_spec(self) -> dict[str, ArraySpec]:
        """The arrays of `image_of`."""
        picture = ArraySpec((self.crop_size, self.crop_size, 3), "uint8", 0, picture=True)
        return {"image": picture, extent_of("image"): ArraySpec((2,), "int32", 0)}

    def crop(self, example: Example, rng: np.random.Generator, *, label: bool) -> Crop:
        """A random crop, with its label where that is asked for."""
        return train_transform(
            example["image"],
            example["label"] if label else None,
            rng,
            scale=self.scale,
            ratio_range=self.ratio_range,
            crop_size=self.crop_size,
            category_ratio=self.category_ratio,
            label_stride=self.downsample_rate,
        )


def image_of(crop: Crop) -> dict[str, Any]:
    """The picture of a row, and how much of it the photo fills."""
    return {"image": crop, extent_of("image"): crop.extent}


def padded_tags(tags: Iterable[int], max_labels: int, photo: str) -> Int32[np.ndarray, " max_labels"]:
    """Columns in ascending order, then IGNORE_LABEL; DataError if they are too many."""
    found = sorted(tags)
    if len(found) > max_labels:
        what = f"photo {photo!r} has {len(found)} tags and max_labels is {max_labels}"
        raise DataError("many tags", what, f"set the stream's max_labels to at least {len(found)}")
    padded = np.full(max_labels, IGNORE_LABEL, np.int32)
    padded[: len(found)] = found
    return padded


def tags_in(label: Int32[np.ndarray, "h w"]) -> Int32[np.ndarray, " k"]:
    """Ascending columns present in a label."""
    pixels = np.bincount((label - IGNORE_LABEL).ravel())[1:]
    return np.flatnonzero(pixels).astype(np.int32)
