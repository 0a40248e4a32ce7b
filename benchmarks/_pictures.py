"""Pictures that cost a decoder what photographs cost it, drawn here, and the settings of the two streams."""

from __future__ import annotations

import dataclasses
import itertools
from pathlib import Path

import cv2
import numpy as np
from jaxtyping import Float32, Int, UInt8, UInt16

from data_pipelines.builders.records import mask_png
from data_pipelines.decode import decode_image
from larvseg_jax.errors import UserError

CLASSES = 171
IGNORE = 65535
"""Value of the masks' unlabelled pixels."""

MEAN, STD = (123.675, 116.28, 103.53), (58.395, 57.12, 57.375)


@dataclasses.dataclass(frozen=True)
class Settings:
    """What one stream does to a photo; the meaning is that of data_pipelines.streams.Stream."""

    scale: tuple[int, int]
    crop_size: int
    masks: bool
    ratio_range: tuple[float, float] = (0.5, 2.0)
    category_ratio: float = 0.75
    downsample_rate: int = 2


SETTINGS = {
    "C171": Settings(scale=(2048, 512), crop_size=512, masks=True),
    "I21K": Settings(scale=(320, 320), crop_size=320, masks=False),
}

Picture = tuple[bytes, bytes | None]
"""JPEG file, and the mask's PNG file (16 bits, class ids, 65535 = ignore) or None."""


def draw_pictures(stream: str, count: int) -> list[Picture]:
    """Generated pictures: COCO's size and masks of 3 to 9 classes, or ImageNet's sizes.

    ImageNet-21K takes 1.31 TB for 14.2 million photos: about 92 kB each. One large one in 24 gives that.
    """
    sizes = [(480, 640)] * 6 + [(640, 480)] * 2
    if stream == "I21K":
        sizes = ([(375, 500)] * 5 + [(500, 375)] * 2 + [(333, 500)]) * 3
        sizes[12] = (1200, 1600)
    rng = np.random.default_rng(0)
    drawn = []
    for height, width in itertools.islice(itertools.cycle(sizes), count):
        areas = _areas(rng, height, width, int(rng.integers(3, 10)))
        drawn.append((_jpeg(_photo(rng, areas)), mask_png(_mask(rng, areas)) if SETTINGS[stream].masks else None))
    return drawn


def read_pictures(folder: Path, stream: str, count: int) -> list[Picture]:
    """JPEG files of a folder (sorted, subfolders included), as they are; masks are drawn."""
    rng = np.random.default_rng(0)
    files = sorted(p for p in folder.rglob("*") if p.suffix.lower() in (".jpg", ".jpeg"))[:count]
    if not files:
        raise UserError(f"{folder}: no .jpg or .jpeg file in it: give --photos a folder of photos")
    found: list[Picture] = []
    for file in files:
        data = file.read_bytes()
        height, width = decode_image(data, str(file)).shape[:2]
        areas = _areas(rng, height, width, int(rng.integers(3, 10)))
        found.append((data, mask_png(_mask(rng, areas)) if SETTINGS[stream].masks else None))
    return found


def _octaves(rng: np.random.Generator, height: int, width: int, fall: float) -> Float32[np.ndarray, "h w"]:
    """Smooth noise at every scale, each octave `fall` times as strong as the coarser one."""
    total, strength, cells = np.zeros((height, width), np.float32), 1.0, 2
    while cells < max(height, width):
        grid = rng.standard_normal((max(2, cells * height // width) + 1, cells + 1)).astype(np.float32)
        total += strength * cv2.resize(grid, (width, height), interpolation=cv2.INTER_CUBIC)
        strength, cells = strength * fall, 2 * cells
    return total


def _areas(rng: np.random.Generator, height: int, width: int, count: int) -> Int[np.ndarray, "h w"]:
    """`count` areas of unequal size with ragged outlines."""
    fields = [_octaves(rng, height, width, 0.4) + rng.normal(0, 0.5) for _ in range(count)]
    return np.argmax(np.stack(fields), axis=0)


def _photo(rng: np.random.Generator, areas: Int[np.ndarray, "h w"]) -> UInt8[np.ndarray, "h w 3"]:
    """Areas of different colour, shading and texture, with a camera's noise."""
    height, width = areas.shape
    image = 110 + 45 * _octaves(rng, height, width, 0.6)[..., None]
    image = image + 18 * np.stack([_octaves(rng, height, width, 0.6) for _ in range(3)], axis=-1)
    image += rng.normal(0, 30, (areas.max() + 1, 3))[areas]
    image += rng.normal(0, rng.uniform(5, 14), (height, width, 1))
    return np.clip(image, 0, 255).astype(np.uint8)


def _mask(rng: np.random.Generator, areas: Int[np.ndarray, "h w"]) -> UInt16[np.ndarray, "h w"]:
    ids = rng.permutation(CLASSES)[: areas.max() + 1].astype(np.uint16)
    if rng.random() < 0.3:
        ids[0] = IGNORE
    return ids[areas]


def _jpeg(image: UInt8[np.ndarray, "h w 3"]) -> bytes:
    return cv2.imencode(".jpg", image, [cv2.IMWRITE_JPEG_QUALITY, 90])[1].tobytes()
