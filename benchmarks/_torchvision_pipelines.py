"""The same augmentations by torchvision.transforms.v2, and TorchCodec, run by an interpreter that has PyTorch.

Started by benchmarks.input_pipeline with the file of pictures; answers one JSON line on stdout for every
{"stream", "variant", "round"} line on stdin. Needs torch, torchvision, NumPy and Pillow.
"""

# mypy: disable-error-code="import-not-found"

from __future__ import annotations

import functools
import io
import json
import pickle
import sys
import time
from collections.abc import Callable
from types import SimpleNamespace
from typing import Any

import numpy as np
import torch
import torchvision
from PIL import Image
from torchvision.io import ImageReadMode, decode_image
from torchvision.transforms import InterpolationMode
from torchvision.transforms.v2 import functional as F

from benchmarks._laps import Laps

try:
    import torchcodec.decoders
except (ImportError, RuntimeError, OSError):  # not installed, or without the libraries that it needs
    torchcodec = None

IGNORE = 255
HUE, LEVELS = 18 / 180, 32 / 255

Row = tuple[torch.Tensor, torch.Tensor | None]


def by_torchvision(photo: bytes) -> torch.Tensor:
    """Its decoder."""
    return decode_image(torch.frombuffer(bytearray(photo), dtype=torch.uint8), ImageReadMode.RGB)


def tensors(
    picture: tuple,
    settings: Any,
    rng: np.random.Generator,
    lap: Laps,
    *,
    decode: Callable[[bytes], torch.Tensor] = by_torchvision,
) -> Row:
    """uint8 tensors all the way: a decoder of photos, no antialiasing."""
    image = decode(picture[0])
    lap("decode photo")
    label = None
    if picture[1] is not None:
        label = decode_image(torch.frombuffer(bytearray(picture[1]), dtype=torch.uint8)).to(torch.uint8)
        lap("decode mask")
    shape = resized_shape(image.shape[1], image.shape[2], settings, rng)
    image = F.resize(image, shape, InterpolationMode.BILINEAR, antialias=False)
    lap("resize photo")
    label = None if label is None else F.resize(label, shape, InterpolationMode.NEAREST)
    lap("resize mask")
    return finish(image, label, shape, settings, rng, lap)


def pictures(picture: tuple, settings: Any, rng: np.random.Generator, lap: Laps) -> Row:
    """PIL pictures until the normalisation, as torchvision's own references do."""
    image = Image.open(io.BytesIO(picture[0])).convert("RGB")
    lap("decode photo")
    label = None
    if picture[1] is not None:
        mask = np.asarray(Image.open(io.BytesIO(picture[1]))).astype(np.uint8)
        label = Image.fromarray(mask)
        lap("decode mask")
    shape = resized_shape(image.height, image.width, settings, rng)
    image = F.resize(image, shape, InterpolationMode.BILINEAR)
    lap("resize photo")
    if label is not None:
        label = F.pil_to_tensor(F.resize(label, shape, InterpolationMode.NEAREST))
        lap("resize mask")
    return finish(image, label, shape, settings, rng, lap)


def resized_shape(height: int, width: int, settings: Any, rng: np.random.Generator) -> list[int]:
    """As data_pipelines.transforms.resized_shape."""
    ratio = rng.uniform(*settings.ratio_range)
    limits = [int(side * ratio) for side in settings.scale]
    factor = min(max(limits) / max(height, width), min(limits) / min(height, width))
    return [int(height * factor + 0.5), int(width * factor + 0.5)]


def finish(image: Any, label: torch.Tensor | None, shape: list, settings: Any, rng: Any, lap: Laps) -> Row:
    """Crop, flip, distort, normalise, pad."""
    size = settings.crop_size
    margins = np.maximum(np.array(shape) - size, 0) + 1
    height, width = (min(size, side) for side in shape)
    top, left = rng.integers(margins).tolist()
    for _ in range(0 if label is None else 10):
        pixels = torch.bincount(F.crop(label, top, left, height, width).flatten(), minlength=256)[:IGNORE]
        if pixels.count_nonzero() > 1 and pixels.max() < settings.category_ratio * pixels.sum():
            break
        top, left = rng.integers(margins).tolist()
    image = F.crop(image, top, left, height, width)
    label = None if label is None else F.crop(label, top, left, height, width)
    lap("crop")
    if rng.random() < 0.5:
        image = F.horizontal_flip(image)
        label = None if label is None else F.horizontal_flip(label)
    lap("flip")
    image = distort(image, rng)
    lap("distort")
    image = F.to_dtype(F.to_image(image), torch.float32, scale=True)
    image = F.normalize(image, [0.485, 0.456, 0.406], [0.229, 0.224, 0.225], inplace=True)
    lap("normalise")
    below_right = [0, 0, size - width, size - height]
    image = F.pad(image, below_right)
    if label is not None:
        label = F.pad(label, below_right, fill=IGNORE)[0]
        label = label[:: settings.downsample_rate, :: settings.downsample_rate].to(torch.int32)
    lap("pad")
    return image, label


def distort(image: Any, rng: np.random.Generator) -> Any:
    """The steps of v2.RandomPhotometricDistort without its permutation of the channels."""
    if rng.random() < 0.5:
        image = F.adjust_brightness(image, 1 + rng.uniform(-LEVELS, LEVELS))
    contrast_first = rng.random() < 0.5
    if contrast_first and rng.random() < 0.5:
        image = F.adjust_contrast(image, rng.uniform(0.5, 1.5))
    if rng.random() < 0.5:
        image = F.adjust_saturation(image, rng.uniform(0.5, 1.5))
    if rng.random() < 0.5:
        image = F.adjust_hue(image, rng.uniform(-HUE, HUE))
    if not contrast_first and rng.random() < 0.5:
        image = F.adjust_contrast(image, rng.uniform(0.5, 1.5))
    return image


VARIANTS: dict[str, Callable[..., Row]] = {"torchvision v2, tensors": tensors, "torchvision v2, PIL": pictures}
VERSIONS = f"torch {torch.__version__}, torchvision {torchvision.__version__}"
if torchcodec is not None:
    VARIANTS["TorchCodec, then torchvision v2"] = functools.partial(tensors, decode=torchcodec.decoders.decode_jpeg)
    VERSIONS += f", torchcodec {torchcodec.__version__}"


def one_round(augment: Callable[..., Row], data: list, settings: Any, batch: int, number: int) -> dict:
    """Every picture once, in batches."""
    generators = [np.random.default_rng([number, i]) for i in range(len(data))]
    laps, begin, cpu = Laps(), time.perf_counter(), time.process_time()
    for first in range(0, len(data), batch):
        laps.start()
        rows = []
        for i, picture in enumerate(data[first : first + batch], first):
            rows.append(augment(picture, settings, generators[i], laps))
        torch.stack([image for image, _ in rows])
        if settings.masks:
            torch.stack([label for _, label in rows])
        laps("stack")
    return {"cpu": time.process_time() - cpu, "wall": time.perf_counter() - begin, "stages": laps.seconds}


def main() -> None:
    """Serves rounds until stdin ends."""
    torch.set_num_threads(1)
    with open(sys.argv[1], "rb") as stream:
        data = pickle.load(stream)
    print(json.dumps({"versions": VERSIONS, "variants": list(VARIANTS)}), flush=True)
    for line in sys.stdin:
        order = json.loads(line)
        given = data[order["stream"]]
        settings = SimpleNamespace(**given["settings"])
        augment = VARIANTS[order["variant"]]
        print(json.dumps(one_round(augment, given["pictures"], settings, data["batch"], order["round"])), flush=True)


if __name__ == "__main__":
    main()
