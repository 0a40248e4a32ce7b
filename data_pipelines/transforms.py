"""Augmentation of one photo and its label, as the original's pipeline does it (OpenCV, 8 bits).

Pure functions of arrays and a NumPy generator. Images are RGB, labels columns or IGNORE_LABEL.
"""

from __future__ import annotations

import dataclasses
import math
import threading

import cv2
import numpy as np
from jaxtyping import Float32, Int32, UInt8

from larvseg_jax.vocabulary import IGNORE_LABEL

MEAN = np.array([123.675, 116.28, 103.53])
STD = np.array([58.395, 57.12, 57.375])
CROP_TRIES = 10

Image = UInt8[np.ndarray, "h w 3"]
Label = Int32[np.ndarray, "h w"]

Levels = UInt8[np.ndarray, "256"]
"""A table: what becomes of each level of a channel."""

_LEVELS = np.arange(256)
_LEVELS_32 = _LEVELS.astype(np.float32)
_SAME = _LEVELS.astype(np.uint8)
NORMALISED = ((_LEVELS[:, None] - MEAN) / STD).astype(np.float32)[None]
_THIN = 16  # every 16th row and column of a crop tells which class may fill it


class _Scratch(threading.local):
    """One buffer per purpose and thread, grown when needed.

    A new array of a picture's size comes in fresh pages, and the kernel's work on these costs more
    than a resize or a look-up. So results that do not outlive a call go here.
    """

    def __init__(self) -> None:
        self._buffers: dict[str, np.ndarray] = {}

    def array(self, purpose: str, shape: tuple[int, ...], dtype: type) -> np.ndarray:
        """An array of any content, valid until the thread asks for the same purpose again."""
        size = math.prod(shape)
        buffer = self._buffers.get(purpose)
        if buffer is None or buffer.size < size:
            buffer = self._buffers[purpose] = np.empty(size, dtype)
        return buffer[:size].reshape(shape)


_scratch = _Scratch()


@dataclasses.dataclass(frozen=True)
class Crop:
    """An augmented photo but for its last step: the pixels are yet to be looked up in `levels`.

    Attributes:
      image: at most S x S, S = size; the rest of the crop is open.
      levels: the last steps of the distortion.
      label: (S / label_stride)^2, IGNORE_LABEL where the photo leaves the crop open; None without masks.
    """

    image: Image
    levels: Levels
    label: Int32[np.ndarray, "rows columns"] | None
    size: int

    @property
    def shape(self) -> tuple[int, int, int]:
        """Of its pixels."""
        return self.size, self.size, 3

    @property
    def dtype(self) -> np.dtype:
        """Of its pixels."""
        return np.dtype(np.uint8)

    @property
    def extent(self) -> Int32[np.ndarray, "2"]:
        """Height and width that the photo fills."""
        return np.array(self.image.shape[:2], np.int32)

    def write(self, pixels: UInt8[np.ndarray, "s s 3"]) -> None:
        """The photo into `pixels`; 0 at the bottom and right that it leaves open."""
        height, width = self.image.shape[:2]
        if self.levels is _SAME:
            pixels[:height, :width] = self.image
        else:
            cv2.LUT(self.image, self.levels, pixels[:height, :width])
        pixels[height:] = 0
        pixels[:height, width:] = 0


def resized_shape(height: int, width: int, scale: tuple[int, int], ratio: float = 1.0) -> tuple[int, int]:
    """Height and width after a resize that keeps the proportions.

    `scale` holds the limits of the long and the short side (in any order); both are multiplied by
    `ratio` and cut to integers, and the picture is made as large as both allow.
    """
    limits = [int(side * ratio) for side in scale]
    factor = min(max(limits) / max(height, width), min(limits) / min(height, width))
    return max(1, int(height * factor + 0.5)), max(1, int(width * factor + 0.5))


def resize_image(
    image: Image, shape: tuple[int, int], out: UInt8[np.ndarray, "new_h new_w 3"] | None = None
) -> UInt8[np.ndarray, "new_h new_w 3"]:
    """Bilinear, half-pixel centres, no antialiasing; into `out` if given."""
    if image.shape[:2] == shape:
        return image
    return cv2.resize(image, shape[::-1], out, interpolation=cv2.INTER_LINEAR)


def resize_label(
    label: Label, shape: tuple[int, int], out: Int32[np.ndarray, "new_h new_w"] | None = None
) -> Int32[np.ndarray, "new_h new_w"]:
    """Nearest neighbour, source index floor(i * in / out) as OpenCV rounds it; into `out` if given."""
    if label.shape == shape:
        return label
    return cv2.resize(label, shape[::-1], out, interpolation=cv2.INTER_NEAREST)


def crop_offset(
    shape: tuple[int, ...],
    label: Label | None,
    crop_size: int,
    category_ratio: float,
    rng: np.random.Generator,
) -> tuple[int, int]:
    """Top and left of a random square crop; a side shorter than the crop is taken whole.

    With a label and category_ratio < 1, up to ten boxes are drawn until one shows at least two
    classes and none of them fills category_ratio of its labelled pixels; the eleventh is not looked at.
    Original: with ADE's 847 classes it leaves out a real class instead of the ignored pixels.
    """
    margins = [max(side - crop_size, 0) + 1 for side in shape[:2]]
    top, left = rng.integers(margins).tolist()
    if label is not None and category_ratio < 1 and max(margins) > 1:
        for _ in range(CROP_TRIES):
            if _is_mixed(label[top : top + crop_size, left : left + crop_size], category_ratio):
                break
            top, left = rng.integers(margins).tolist()
    return top, left


def _is_mixed(label: Label, category_ratio: float) -> bool:
    """At least two classes, none of them on category_ratio (< 1) of the labelled pixels.

    A full count is slow, and seldom needed: a class on a share of the pixels between
    1 - category_ratio and category_ratio leaves too little for any other one.
    """
    labelled = label.size - np.count_nonzero(label == IGNORE_LABEL)
    most = category_ratio * labelled
    sample = np.bincount((label[::_THIN, ::_THIN] - IGNORE_LABEL).ravel(), minlength=2)[1:]
    pixels = np.count_nonzero(label == sample.argmax())
    if pixels >= most:
        return False
    if labelled - pixels < most:
        return True
    counts = np.bincount((label - IGNORE_LABEL).ravel())[1:]
    return bool(np.count_nonzero(counts) > 1 and counts.max() < most)


def photometric_distortion(image: Image, rng: np.random.Generator) -> tuple[Image, Levels]:
    """Brightness, contrast, saturation and hue, each with probability 1/2: the result is levels[image].

    Contrast comes before or after the colours with equal odds. Every step works on 8 bits: clipped
    to 0..255, truncated. Saturation and hue go to OpenCV's HSV (hue 0..179) and back separately.
    Each step maps a level of one channel to a level, hence the tables; a table of a table is one.

    Returns:
      The argument or a new array, and the last table.
    """
    levels = _SAME
    if _coin(rng):
        levels = _affine(1.0, rng.uniform(-32, 32))
    contrast_first = _coin(rng)
    if contrast_first and _coin(rng):
        levels = _affine(rng.uniform(0.5, 1.5), 0.0)[levels]
    if _coin(rng):
        image = _hsv_table(image, levels, 1, _affine(rng.uniform(0.5, 1.5), 0.0))
        levels = _SAME
    if _coin(rng):
        image = _hsv_table(image, levels, 0, ((_LEVELS + rng.integers(-18, 18)) % 180).astype(np.uint8))
        levels = _SAME
    if not contrast_first and _coin(rng):
        levels = _affine(rng.uniform(0.5, 1.5), 0.0)[levels]
    return image, levels


def _coin(rng: np.random.Generator) -> bool:
    return bool(rng.random() < 0.5)


def _affine(factor: float, offset: float) -> UInt8[np.ndarray, "256"]:
    return (_LEVELS_32 * np.float32(factor) + np.float32(offset)).clip(0, 255).astype(np.uint8)


def _hsv_table(image: Image, levels: Levels, channel: int, table: Levels) -> Image:
    """`table` on one HSV channel of levels[image], back in RGB: a new array."""
    if levels is not _SAME:
        image = cv2.LUT(image, levels, _scratch.array("levels", image.shape, np.uint8))
    hsv = cv2.cvtColor(image, cv2.COLOR_RGB2HSV, _scratch.array("hsv", image.shape, np.uint8))
    plane = cv2.extractChannel(hsv, channel, _scratch.array("plane", image.shape[:2], np.uint8))
    cv2.insertChannel(cv2.LUT(plane, table, plane), hsv, channel)
    return cv2.cvtColor(hsv, cv2.COLOR_HSV2RGB)


def normalise(image: Image) -> Float32[np.ndarray, "h w 3"]:
    """(x - MEAN) / STD per channel."""
    return cv2.LUT(image, NORMALISED)


def train_transform(
    image: Image,
    label: Int32[np.ndarray, "h w"] | None,
    rng: np.random.Generator,
    *,
    scale: tuple[int, int],
    ratio_range: tuple[float, float],
    crop_size: int,
    category_ratio: float,
    label_stride: int = 1,
) -> Crop:
    """Resize by a random ratio, crop, flip, distort; what is left is Crop.write: the last levels, and padding.

    The label is that of every label_stride-th row and column of the finished crop.
    """
    shape = resized_shape(image.shape[0], image.shape[1], scale, rng.uniform(*ratio_range))
    if label is not None:
        label = resize_label(label, shape, _scratch.array("label", shape, np.int32))
    top, left = crop_offset(shape, label, crop_size, category_ratio, rng)
    box = np.s_[top : top + crop_size, left : left + crop_size]
    flip = _coin(rng)
    if label is not None:
        label = label[box][:, ::-1] if flip else label[box]
        label = _pad_label(label[::label_stride, ::label_stride], crop_size // label_stride)
    image = resize_image(image, shape, _scratch.array("image", (*shape, 3), np.uint8))
    image = image[box]
    if flip:  # before the colours: OpenCV's conversions differ by a level in the last columns of a row
        image = cv2.flip(image, 1, _scratch.array("flipped", image.shape, np.uint8))
    distorted, levels = photometric_distortion(image, rng)
    return Crop(image.copy() if distorted is image else distorted, levels, label, crop_size)


def _pad_label(label: Label, size: int) -> Int32[np.ndarray, "size size"]:
    padded = np.full((size, size), IGNORE_LABEL, np.int32)
    padded[: label.shape[0], : label.shape[1]] = label
    return padded


def eval_transform(image: Image, scale: tuple[int, int]) -> Float32[np.ndarray, "new_h new_w 3"]:
    """Resize to `scale` without random ratio and normalise; no crop, no padding."""
    return normalise(resize_image(image, resized_shape(image.shape[0], image.shape[1], scale)))
