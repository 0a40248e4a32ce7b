"""Crops of any size and shape, resized to one, and changes of their colours, for learning from photos without labels.

Pure functions of arrays and a NumPy generator. Pictures are RGB of 8 bits, and results new arrays. The changes are
those of SimCLR (arXiv:2002.05709, appendix A) in the strengths of DINO (arXiv:2104.14294).
"""

from __future__ import annotations

import math

import cv2
import numpy as np
from jaxtyping import Float64, UInt8

_TRIES = 10
_BRIGHTNESS, _CONTRAST, _SATURATION, _HUE = 0.4, 0.4, 0.2, 0.1
_SIGMA = (0.1, 2.0)  # of the blur, pixels of a crop of
_SIDE = 224
_GREY = np.array([0.299, 0.587, 0.114])
_LEVELS = np.arange(256)

Picture = UInt8[np.ndarray, "h w 3"]


def resized_crop(
    image: Picture,
    rng: np.random.Generator,
    size: int,
    scale: tuple[float, float],
    ratio: tuple[float, float],
    *,
    flip: bool,
) -> UInt8[np.ndarray, "{size} {size} 3"]:
    """A random box of the picture, resized to a square, mirrored with odds 1/2 where `flip`."""
    top, left, height, width = random_box((image.shape[0], image.shape[1]), rng, scale, ratio)
    box = np.ascontiguousarray(image[top : top + height, left : left + width])
    smaller = height > size and width > size
    # INTER_AREA averages; linear without it would leave out most pixels of a large photo.
    crop = cv2.resize(box, (size, size), interpolation=cv2.INTER_AREA if smaller else cv2.INTER_LINEAR)
    return cv2.flip(crop, 1) if flip and rng.random() < 0.5 else crop


def random_box(
    shape: tuple[int, int], rng: np.random.Generator, scale: tuple[float, float], ratio: tuple[float, float]
) -> tuple[int, int, int, int]:
    """(top, left, height, width) of a box: its share of the area in U(scale), width over height log-uniform in `ratio`.

    Of ten draws the first that fits in; else the largest box in the middle whose proportions are in `ratio`.
    """
    height, width = shape
    for _ in range(_TRIES):
        area = height * width * rng.uniform(*scale)
        proportion = math.exp(rng.uniform(math.log(ratio[0]), math.log(ratio[1])))
        h, w = round(math.sqrt(area / proportion)), round(math.sqrt(area * proportion))
        if 0 < h <= height and 0 < w <= width:
            return int(rng.integers(height - h + 1)), int(rng.integers(width - w + 1)), h, w
    proportion = min(max(width / height, ratio[0]), ratio[1])
    h, w = min(height, max(1, round(width / proportion))), min(width, max(1, round(height * proportion)))
    return (height - h) // 2, (width - w) // 2, h, w


def jittered(image: Picture, rng: np.random.Generator, *, jitter: float, grey: float, blur: float) -> Picture:
    """Other colours, none, and blurred, each with its own odds; the same random numbers are drawn for all odds.

    Brightness, contrast and saturation by factors in 1 +- 0.4, 0.4 and 0.2, hue by up to a tenth of the circle, in
    random order; a blur of 0.1 to 2 pixels of a crop of 224.
    """
    lots, order = rng.random(3), rng.permutation(4)
    strengths, sigma = rng.uniform(-1, 1, 4), rng.uniform(*_SIGMA) * max(image.shape[:2]) / _SIDE
    if lots[0] < jitter:
        changes = (brighter, contrasted, saturated, hue_turned)
        sizes = (1, 1, 1, 0) + strengths * (_BRIGHTNESS, _CONTRAST, _SATURATION, _HUE)
        for which in order:
            image = changes[which](image, float(sizes[which]))
    if lots[1] < grey:
        image = saturated(image, 0.0)
    if lots[2] < blur:
        image = cv2.GaussianBlur(image, (0, 0), sigma)
    return image


def brighter(image: Picture, factor: float) -> Picture:
    """Factor times the levels."""
    return cv2.LUT(image, _rounded(factor * _LEVELS))


def contrasted(image: Picture, factor: float) -> Picture:
    """Levels drawn to the picture's mean grey: factor * x + (1 - factor) * mean."""
    mean = cv2.mean(image)[:3] @ _GREY
    return cv2.LUT(image, _rounded(factor * _LEVELS + (1 - factor) * mean))


def saturated(image: Picture, factor: float) -> Picture:
    """Levels drawn to the pixel's own grey: factor * x + (1 - factor) * grey(x); 0: a grey picture."""
    return cv2.transform(image, factor * np.eye(3) + (1 - factor) * np.tile(_GREY, (3, 1)))


def hue_turned(image: Picture, turn: float) -> Picture:
    """Hues turned by a share of the circle."""
    hsv = cv2.cvtColor(image, cv2.COLOR_RGB2HSV)  # hue 0..179
    hsv[..., 0] = cv2.LUT(hsv[..., 0], ((_LEVELS + round(180 * turn)) % 180).astype(np.uint8))
    return cv2.cvtColor(hsv, cv2.COLOR_HSV2RGB)


def _rounded(levels: Float64[np.ndarray, "256"]) -> UInt8[np.ndarray, "256"]:
    return np.rint(levels).clip(0, 255).astype(np.uint8)
