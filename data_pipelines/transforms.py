"""Augmentation of one photo and its label, as the original's pipeline does it (OpenCV, 8 bits).

Pure functions of arrays and a NumPy generator. Images are RGB, labels columns or IGNORE_LABEL.
"""

from __future__ import annotations

import cv2
import numpy as np
from jaxtyping import Float32, Int32, UInt8

from larvseg_jax.vocabulary import IGNORE_LABEL

MEAN = np.array([123.675, 116.28, 103.53])
STD = np.array([58.395, 57.12, 57.375])
CROP_TRIES = 10

Image = UInt8[np.ndarray, "h w 3"]
Label = Int32[np.ndarray, "h w"]

_LEVELS = np.arange(256)
_NORMALISED = ((_LEVELS[:, None] - MEAN) / STD).astype(np.float32)[None]


def resized_shape(height: int, width: int, scale: tuple[int, int], ratio: float = 1.0) -> tuple[int, int]:
    """Height and width after a resize that keeps the proportions.

    `scale` holds the limits of the long and the short side (in any order); both are multiplied by
    `ratio` and cut to integers, and the picture is made as large as both allow.
    """
    limits = [int(side * ratio) for side in scale]
    factor = min(max(limits) / max(height, width), min(limits) / min(height, width))
    return max(1, int(height * factor + 0.5)), max(1, int(width * factor + 0.5))


def resize_image(image: Image, shape: tuple[int, int]) -> UInt8[np.ndarray, "new_h new_w 3"]:
    """Bilinear, half-pixel centres, no antialiasing."""
    if image.shape[:2] == shape:
        return image
    return cv2.resize(image, shape[::-1], interpolation=cv2.INTER_LINEAR)


def resize_label(label: Label, shape: tuple[int, int]) -> Int32[np.ndarray, "new_h new_w"]:
    """Nearest neighbour, source index floor(i * in / out) as OpenCV rounds it."""
    if label.shape == shape:
        return label
    return cv2.resize(label, shape[::-1], interpolation=cv2.INTER_NEAREST)


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
    margins = np.maximum(np.array(shape[:2]) - crop_size, 0) + 1
    top, left = rng.integers(margins)
    if label is not None and category_ratio < 1 and margins.max() > 1:
        for _ in range(CROP_TRIES):
            if _is_mixed(label[top : top + crop_size, left : left + crop_size], category_ratio):
                break
            top, left = rng.integers(margins)
    return int(top), int(left)


def _is_mixed(label: Label, category_ratio: float) -> bool:
    pixels = np.bincount((label - IGNORE_LABEL).ravel())[1:]
    return bool(np.count_nonzero(pixels) > 1 and pixels.max() < category_ratio * pixels.sum())


def photometric_distortion(image: Image, rng: np.random.Generator) -> Image:
    """Brightness, contrast, saturation and hue, each with probability 1/2.

    Contrast comes before or after the colours with equal odds. Every step works on 8 bits: clipped
    to 0..255, truncated. Saturation and hue go to OpenCV's HSV (hue 0..179) and back separately.
    Each step maps a level of one channel to a level, hence the tables.
    """
    if _coin(rng):
        image = cv2.LUT(image, _affine(1.0, rng.uniform(-32, 32)))
    contrast_first = _coin(rng)
    if contrast_first and _coin(rng):
        image = cv2.LUT(image, _affine(rng.uniform(0.5, 1.5), 0.0))
    if _coin(rng):
        image = _hsv_table(image, 1, _affine(rng.uniform(0.5, 1.5), 0.0))
    if _coin(rng):
        image = _hsv_table(image, 0, ((_LEVELS + rng.integers(-18, 18)) % 180).astype(np.uint8))
    if not contrast_first and _coin(rng):
        image = cv2.LUT(image, _affine(rng.uniform(0.5, 1.5), 0.0))
    return image


def _coin(rng: np.random.Generator) -> bool:
    return bool(rng.random() < 0.5)


def _affine(factor: float, offset: float) -> UInt8[np.ndarray, "256"]:
    levels = _LEVELS.astype(np.float32) * np.float32(factor) + np.float32(offset)
    return np.clip(levels, 0, 255).astype(np.uint8)


def _hsv_table(image: Image, channel: int, levels: UInt8[np.ndarray, "256"]) -> Image:
    table = np.repeat(_LEVELS.astype(np.uint8)[None, :, None], 3, axis=2)
    table[0, :, channel] = levels
    hsv = cv2.LUT(cv2.cvtColor(image, cv2.COLOR_RGB2HSV), table)
    return cv2.cvtColor(hsv, cv2.COLOR_HSV2RGB)


def normalise(image: Image) -> Float32[np.ndarray, "h w 3"]:
    """(x - MEAN) / STD per channel."""
    return cv2.LUT(image, _NORMALISED)


def train_transform(
    image: Image,
    label: Int32[np.ndarray, "h w"] | None,
    rng: np.random.Generator,
    *,
    scale: tuple[int, int],
    ratio_range: tuple[float, float],
    crop_size: int,
    category_ratio: float,
) -> tuple[Float32[np.ndarray, "s s 3"], Int32[np.ndarray, "s s"] | None]:
    """Resize by a random ratio, crop, flip, distort, normalise, pad: an S x S picture, S = crop_size.

    What a smaller picture leaves open at the bottom and right is 0 (after normalisation) in the image
    and IGNORE_LABEL in the label.
    """
    shape = resized_shape(image.shape[0], image.shape[1], scale, rng.uniform(*ratio_range))
    image = resize_image(image, shape)
    label = None if label is None else resize_label(label, shape)
    top, left = crop_offset(shape, label, crop_size, category_ratio, rng)
    box = np.s_[top : top + crop_size, left : left + crop_size]
    image, label = image[box], None if label is None else label[box]
    if _coin(rng):
        image, label = cv2.flip(image, 1), None if label is None else label[:, ::-1]
    pixels = normalise(photometric_distortion(image, rng))
    if pixels.shape[:2] == (crop_size, crop_size):
        return pixels, label
    inside = np.s_[: pixels.shape[0], : pixels.shape[1]]
    padded = np.zeros((crop_size, crop_size, 3), np.float32)
    padded[inside] = pixels
    if label is None:
        return padded, None
    padded_label = np.full((crop_size, crop_size), IGNORE_LABEL, np.int32)
    padded_label[inside] = label
    return padded, padded_label


def eval_transform(image: Image, scale: tuple[int, int]) -> Float32[np.ndarray, "new_h new_w 3"]:
    """Resize to `scale` without random ratio and normalise; no crop, no padding."""
    return normalise(resize_image(image, resized_shape(image.shape[0], image.shape[1], scale)))
