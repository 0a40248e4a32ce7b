"""How a stream of captions sees its photos: a random crop and one caption; for ViL-Seg also small crops and colours.

Sizes and odds are those of DINO's multi-crop (arXiv:2104.14294), as ViL-Seg (ECCV 2022) leaves them open.
"""

from __future__ import annotations

import dataclasses
import functools
from typing import Any, ClassVar

import cv2
import numpy as np
from jaxtyping import Float32, UInt8

from data_pipelines.examples import Example, Reads
from data_pipelines.random_crops import jittered, resized_crop
from data_pipelines.rows import ArraySpec
from data_pipelines.transforms import MEAN, STD
from larvseg_jax.errors import UserError
from larvseg_jax.options import Count, CountOrNone
from larvseg_jax.text.tokenizer import Tokenizer, TokenizerConfig
from larvseg_jax.vocabulary import LabelSet

_LEVELS = np.arange(256)[:, None]


@dataclasses.dataclass(frozen=True)
class CaptionView:
    """A random crop of a photo and the ids of one of its captions, and for clustering and distillation further crops.

    A row has `image` (S, S, 3) and `tokens` (context,); with local_views also `locals` (k, s, s, 3), with `recoloured`
    also `recoloured` (S, S, 3), which is `image` in other colours, and `flipped` (), whether it is mirrored besides.
    """

    reads: ClassVar[Reads] = "captions"
    labels_pixels: ClassVar[bool] = False
    max_labels: ClassVar[None] = None
    always_tags: ClassVar[tuple[str, ...]] = ()
    loss_size: ClassVar[int] = 0

    crop_size: Count = 224  # S: side of the crop, pixels
    scale: tuple[float, float] = (0.4, 1.0)  # of the crop: share of the photo's area; (1.0, 1.0) = its middle square
    ratio: tuple[float, float] = (0.75, 4 / 3)  # of all crops: width over height in the photo
    flip: bool = True  # mirror half of the crops; False where captions say left and right
    jitter: float = 0.8  # share of the crops whose brightness, contrast, saturation and hue change
    grey: float = 0.2  # share of the crops without colours; 0.0 where captions name colours
    blur: float = 0.5  # share of the crops that are blurred
    text: TokenizerConfig = TokenizerConfig()  # as the method's
    local_views: CountOrNone = 0  # k: small crops of a photo; 0 = none (Paper: 6)
    local_size: Count = 96  # s: side of a small crop, pixels
    local_scale: tuple[float, float] = (0.05, 0.4)  # of the small crops: share of the photo's area
    recoloured: bool = False  # also the crop as g of the clustering loss changes it: colours, and mirrored or not

    def __post_init__(self) -> None:
        for name, most in (("scale", 1.0), ("local_scale", 1.0), ("ratio", np.inf)):
            low, high = getattr(self, name)
            if not 0 < low <= high <= most:
                raise UserError(f"{name} is {(low, high)}: give two numbers above 0, the smaller one first")
        for name in ("jitter", "grey", "blur"):
            if not 0 <= getattr(self, name) <= 1:
                raise UserError(f"{name} is {getattr(self, name)}: give a share of the crops, 0 to 1")

    @functools.cached_property
    def tokenizer(self) -> Tokenizer:
        """From a caption to its ids; UserError if a library is missing."""
        return self.text.make()

    def check(self, label_set: LabelSet) -> None:
        """UserError if there is no such tokenizer; captions go with any classes."""
        _ = self.tokenizer

    def row(self, example: Example, rng: np.random.Generator, label_set: LabelSet) -> dict[str, Any]:
        """The arrays of `spec`."""
        captions = example["captions"]
        tokens = self.tokenizer(captions[rng.integers(len(captions))])
        image = self._crop(example, rng, self.crop_size, self.scale)
        row: dict[str, Any] = {"image": image, "tokens": tokens}
        if self.local_views:
            crops = [self._crop(example, rng, self.local_size, self.local_scale) for _ in range(self.local_views)]
            row["locals"] = np.stack(crops)
        if self.recoloured:
            row["recoloured"], row["flipped"] = recoloured(image, rng)
        return row

    def spec(self) -> dict[str, ArraySpec]:
        """What a row consists of."""
        picture = ArraySpec((self.crop_size, self.crop_size, 3), "uint8", 0, picture=True)
        spec = {"image": picture, "tokens": ArraySpec((self.text.context,), "int32", 0)}
        if self.local_views:
            spec["locals"] = picture._replace(shape=(self.local_views, self.local_size, self.local_size, 3))
        if self.recoloured:
            # Normalised already: its levels are no whole numbers, and beyond 0 and 255.
            spec |= {"recoloured": picture._replace(dtype="float32"), "flipped": ArraySpec((), "bool", 0)}
        return spec

    def _crop(
        self, example: Example, rng: np.random.Generator, size: int, scale: tuple[float, float]
    ) -> UInt8[np.ndarray, "size size 3"]:
        crop = resized_crop(example["image"], rng, size, scale, self.ratio, flip=self.flip)
        return jittered(crop, rng, jitter=self.jitter, grey=self.grey, blur=self.blur)


def recoloured(image: UInt8[np.ndarray, "s s 3"], rng: np.random.Generator) -> tuple[_Picture, np.bool]:
    """g(x) of the clustering loss (ViL-Seg, Eq. 7), and whether it is mirrored.

    x' = a x + b for each channel of pixels in 0..1, a in U(0.6, 1.4), b in U(-0.2, 0.2), not clipped, so that nothing
    of the picture is lost; then mirrored with odds 1/2. `Paper:` names the changes, not their sizes.
    """
    factor, offset, flip = rng.uniform(0.6, 1.4, 3), rng.uniform(-0.2, 0.2, 3), rng.random() < 0.5
    table = ((_LEVELS * factor + 255 * offset - MEAN) / STD).astype(np.float32)[None]
    return _Picture(np.ascontiguousarray(image[:, ::-1]) if flip else image, table), np.bool(flip)


@dataclasses.dataclass(frozen=True)
class _Picture:
    """Levels, and what each level of a channel becomes in the batch."""

    image: UInt8[np.ndarray, "s s 3"]
    table: Float32[np.ndarray, "1 256 3"]

    @property
    def shape(self) -> tuple[int, ...]:
        return self.image.shape

    @property
    def dtype(self) -> np.dtype:
        return self.table.dtype

    def write(self, pixels: Float32[np.ndarray, "s s 3"]) -> None:
        cv2.LUT(self.image, self.table, pixels)
