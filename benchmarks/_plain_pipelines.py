"""The same augmentations as a careful person writes them first, and as mmsegmentation 0.x does."""

from __future__ import annotations

import io

import cv2
import numpy as np
from PIL import Image

from benchmarks._laps import Laps
from benchmarks._pictures import MEAN, STD, Picture, Settings
from data_pipelines.transforms import resized_shape

Row = tuple[np.ndarray, np.ndarray | None]
"""Image (S, S, 3), float32 or uint8, and label (S/r, S/r) or None."""

IGNORE = 255
_MEAN, _STD = np.array(MEAN, np.float32), np.array(STD, np.float32)


def pillow_numpy(picture: Picture, settings: Settings, rng: np.random.Generator, lap: Laps) -> Row:
    """Pillow decodes and resizes (its bilinear filter averages when it shrinks), NumPy does the rest."""
    photo = Image.open(io.BytesIO(picture[0])).convert("RGB")
    lap("decode photo")
    mask = None
    if picture[1] is not None:
        mask = Image.fromarray(np.asarray(Image.open(io.BytesIO(picture[1]))).astype(np.uint8))
        lap("decode mask")
    height, width = resized_shape(photo.height, photo.width, settings.scale, rng.uniform(*settings.ratio_range))
    image = np.asarray(photo.resize((width, height), Image.Resampling.BILINEAR))
    lap("resize photo")
    label = None if mask is None else np.asarray(mask.resize((width, height), Image.Resampling.NEAREST))
    lap("resize mask")
    size = settings.crop_size
    margins = np.maximum(np.array([height, width]) - size, 0) + 1
    top, left = rng.integers(margins)
    if label is not None:
        for _ in range(10):
            pixels = np.bincount(label[top : top + size, left : left + size].ravel(), minlength=256)[:IGNORE]
            if np.count_nonzero(pixels) > 1 and pixels.max() < settings.category_ratio * pixels.sum():
                break
            top, left = rng.integers(margins)
    image = image[top : top + size, left : left + size]
    label = None if label is None else label[top : top + size, left : left + size]
    lap("crop")
    if rng.random() < 0.5:
        image, label = image[:, ::-1], None if label is None else label[:, ::-1]
    lap("flip")
    image = _distort_numpy(image, rng)
    lap("distort")
    normalised = (image.astype(np.float32) - _MEAN) / _STD
    lap("normalise")
    below, right = size - image.shape[0], size - image.shape[1]
    normalised = np.pad(normalised, ((0, below), (0, right), (0, 0)))
    if label is not None:
        label = np.pad(label, ((0, below), (0, right)), constant_values=IGNORE)
        label = label[:: settings.downsample_rate, :: settings.downsample_rate].astype(np.int32)
    lap("pad")
    return normalised, label


def _distort_numpy(image: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    if rng.random() < 0.5:
        image = _convert(image, beta=rng.uniform(-32, 32))
    contrast_first = rng.random() < 0.5
    if contrast_first and rng.random() < 0.5:
        image = _convert(image, alpha=rng.uniform(0.5, 1.5))
    if rng.random() < 0.5:
        hsv = np.array(Image.fromarray(np.ascontiguousarray(image)).convert("HSV"))
        hsv[..., 1] = _convert(hsv[..., 1], alpha=rng.uniform(0.5, 1.5))
        image = np.asarray(Image.fromarray(hsv, "HSV").convert("RGB"))
    if rng.random() < 0.5:
        hsv = np.array(Image.fromarray(np.ascontiguousarray(image)).convert("HSV"))
        hsv[..., 0] += np.uint8(round(rng.integers(-18, 18) * 256 / 180) % 256)  # Pillow's hue: 0..255
        image = np.asarray(Image.fromarray(hsv, "HSV").convert("RGB"))
    if not contrast_first and rng.random() < 0.5:
        image = _convert(image, alpha=rng.uniform(0.5, 1.5))
    return image


def _convert(levels: np.ndarray, alpha: float = 1.0, beta: float = 0.0) -> np.ndarray:
    """As mmsegmentation's PhotoMetricDistortion.convert."""
    return np.clip(levels.astype(np.float32) * np.float32(alpha) + np.float32(beta), 0, 255).astype(np.uint8)


def mmcv_style(
    picture: Picture, settings: Settings, rng: np.random.Generator, lap: Laps, *, normalise: bool = True
) -> Row:
    """mmsegmentation 0.x on mmcv 1.x: the calls that its pipeline makes, without the two packages.

    normalise=False: levels, as mmsegmentation 1.x leaves them, which normalises on the device.
    """
    image: np.ndarray = cv2.imdecode(np.frombuffer(picture[0], np.uint8), cv2.IMREAD_COLOR)  # type: ignore[assignment]
    lap("decode photo")
    label: np.ndarray | None = None
    if picture[1] is not None:
        label = np.asarray(Image.open(io.BytesIO(picture[1]))).astype(np.uint8)
        lap("decode mask")
    ratio = rng.uniform(*settings.ratio_range)
    height, width = resized_shape(image.shape[0], image.shape[1], settings.scale, ratio)
    image = cv2.resize(image, (width, height), interpolation=cv2.INTER_LINEAR)
    lap("resize photo")
    if label is not None:
        label = cv2.resize(label, (width, height), interpolation=cv2.INTER_NEAREST)
        lap("resize mask")
    size = settings.crop_size
    margins = np.maximum(np.array([height, width]) - size, 0) + 1
    top, left = rng.integers(margins)
    if label is not None:
        for _ in range(10):
            classes, pixels = np.unique(label[top : top + size, left : left + size], return_counts=True)
            pixels = pixels[classes != IGNORE]
            if len(pixels) > 1 and np.max(pixels) / np.sum(pixels) < settings.category_ratio:
                break
            top, left = rng.integers(margins)
    image = image[top : top + size, left : left + size]
    label = None if label is None else label[top : top + size, left : left + size]
    lap("crop")
    if rng.random() < 0.5:
        image, label = np.flip(image, axis=1), None if label is None else np.flip(label, axis=1)
    lap("flip")
    image = _distort_mmseg(image, rng)
    lap("distort")
    image = image.copy().astype(np.float32) if normalise else image.copy()
    cv2.cvtColor(image, cv2.COLOR_BGR2RGB, image)
    if normalise:
        cv2.subtract(image, np.array([MEAN]), image)
        cv2.multiply(image, 1 / np.array([STD]), image)
    lap("normalise")
    border = (0, size - image.shape[0], 0, size - image.shape[1], cv2.BORDER_CONSTANT)
    image = cv2.copyMakeBorder(image, *border, value=0)
    if label is not None:
        label = cv2.copyMakeBorder(np.ascontiguousarray(label), *border, value=IGNORE)
        label = label[:: settings.downsample_rate, :: settings.downsample_rate].astype(np.int32)
    lap("pad")
    return image, label


def _distort_mmseg(image: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    if rng.random() < 0.5:
        image = _convert(image, beta=rng.uniform(-32, 32))
    contrast_first = rng.random() < 0.5
    if contrast_first and rng.random() < 0.5:
        image = _convert(image, alpha=rng.uniform(0.5, 1.5))
    if rng.random() < 0.5:
        image = cv2.cvtColor(np.ascontiguousarray(image), cv2.COLOR_BGR2HSV)
        image[:, :, 1] = _convert(image[:, :, 1], alpha=rng.uniform(0.5, 1.5))
        image = cv2.cvtColor(image, cv2.COLOR_HSV2BGR)
    if rng.random() < 0.5:
        image = cv2.cvtColor(np.ascontiguousarray(image), cv2.COLOR_BGR2HSV)
        image[:, :, 0] = (image[:, :, 0].astype(int) + rng.integers(-18, 18)) % 180
        image = cv2.cvtColor(image, cv2.COLOR_HSV2BGR)
    if not contrast_first and rng.random() < 0.5:
        image = _convert(image, alpha=rng.uniform(0.5, 1.5))
    return image
