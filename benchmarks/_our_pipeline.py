"""The project's pipeline on pictures in memory: whole, by stage, and through Grain's threads and processes."""

from __future__ import annotations

import contextlib
import dataclasses
import time
from collections.abc import Callable, Iterator
from typing import Any, SupportsIndex
from unittest import mock

import cv2
import grain
import numpy as np
from absl import flags

from benchmarks._laps import Laps
from benchmarks._pictures import CLASSES, IGNORE, SETTINGS, Picture
from data_pipelines import decode, streams, transforms
from data_pipelines.examples import Example, LabelMap
from data_pipelines.views import MaskView, TagView
from larvseg_jax.vocabulary import Vocabulary

Round = Callable[[str, int], dict[str, Any]]
"""(stream, number) -> {"cpu": seconds, "wall": seconds, "stages": {name: seconds}} of one pass over the pictures."""

_NAMES = tuple(f"class {i}" for i in range(CLASSES))
_LABEL_SET = Vocabulary(_NAMES, (), ()).label_set()


class EncodedSource:
    """What TfdsSource does after reading a record."""

    def __init__(self, pictures: list[Picture]) -> None:
        self._pictures = pictures
        self._label_map = LabelMap.build(_NAMES, IGNORE, _LABEL_SET, "benchmark")

    def __len__(self) -> int:
        return len(self._pictures)

    def __getitem__(self, index: SupportsIndex) -> Example:
        photo, mask = self._pictures[index.__index__()]
        image = decode.decode_image(photo, "photo")
        if mask is None:
            return {"id": "", "image": image, "tags": np.zeros(1, np.int32)}
        return {"id": "", "image": image, "label": self._label_map.label(decode.decode_mask(mask, ""), image, "")}


def our_stream(name: str, pictures: list[Picture], batch_size: int) -> streams.Stream:
    """The stream of the project with the benchmark's settings."""
    settings = SETTINGS[name]
    photos: dict[str, Any] = dict(
        crop_size=settings.crop_size,
        scale=settings.scale,
        ratio_range=settings.ratio_range,
        category_ratio=settings.category_ratio,
        downsample_rate=settings.downsample_rate,
    )
    view = MaskView(**photos) if settings.masks else TagView(**photos, tags_from="image")
    return streams.Stream(EncodedSource(pictures), _LABEL_SET, view, batch_size)


def our_rounds(pictures: dict[str, list[Picture]], batch_size: int) -> Round:
    """Our pipeline without Grain, with the random numbers that the other pipelines get."""
    made = {name: our_stream(name, given, batch_size) for name, given in pictures.items()}

    def one_round(name: str, number: int) -> dict[str, Any]:
        stream = made[name]
        generators = [np.random.default_rng([number, i]) for i in range(len(stream.source))]
        begin, cpu = time.perf_counter(), time.process_time()
        for first in range(0, len(generators), batch_size):
            numbers = range(first, min(first + batch_size, len(generators)))
            streams.stack([stream.augment(stream.source[i], generators[i]) for i in numbers])
        return {"cpu": time.process_time() - cpu, "wall": time.perf_counter() - begin}

    return one_round


def our_stages(one_round: Round) -> Round:
    """The same with the processor time of each stage; "normalise" writes the batch, "other" is the rest."""
    timed_functions = (
        (decode, "decode_image", "decode photo"),
        (decode, "decode_mask", "decode mask"),
        (LabelMap, "label", "map mask"),
        (transforms, "resize_image", "resize photo"),
        (transforms, "resize_label", "resize mask"),
        (transforms, "crop_offset", "crop"),
        (transforms, "photometric_distortion", "distort"),
        (transforms.Crop, "write", "normalise"),
    )

    def staged(name: str, number: int) -> dict[str, Any]:
        laps = Laps()
        with contextlib.ExitStack() as patches:
            for owner, function, label in timed_functions:
                timed = _timed(getattr(owner, function), laps, label)
                patches.enter_context(mock.patch.object(owner, function, timed))
            result = one_round(name, number)
        laps.seconds["other"] = result["cpu"] - sum(laps.seconds.values())
        return result | {"stages": laps.seconds}

    return staged


def _timed(function: Callable, laps: Laps, label: str) -> Callable:
    def timed(*args: Any, **kwargs: Any) -> Any:
        laps.start()
        result = function(*args, **kwargs)
        laps(label)
        return result

    return timed


def _batches(stream: streams.Stream, count: int, threads: int, processes: int) -> Iterator[Any]:
    """`count` batches by Grain's threads (0: the caller's own), or by worker processes with one thread each."""
    dataset = streams.step_batches({"stream": stream}, seed=0, total_steps=count)
    cv2.setNumThreads(1)
    if not processes:
        return streams.iterate(dataset, 0, threads)
    if not flags.FLAGS.is_parsed():
        flags.FLAGS.mark_as_parsed()
    options = grain.MultiprocessingOptions(num_workers=processes, per_worker_buffer_size=2)
    return iter(dataset.to_iter_dataset(grain.ReadOptions(num_threads=1)).mp_prefetch(options))


@dataclasses.dataclass(frozen=True)
class Speed:
    """Of one run through Grain; worker processes' own processor time is not in it."""

    images_per_second: float
    cores_used: float
    cpu_per_image: float


def speed(stream: streams.Stream, batches: int, threads: int, processes: int) -> Speed:
    """Speed of `batches` batches in the middle of a run: buffers are full before and after."""
    ahead = 4 * max(1, threads, processes)
    found = _batches(stream, batches + 2 * ahead, threads, processes)
    for _ in range(ahead):
        next(found)
    begin, cpu = time.perf_counter(), time.process_time()
    images = sum(len(next(found)["stream"]["id"]) for _ in range(batches))
    wall, cpu = time.perf_counter() - begin, time.process_time() - cpu
    for _ in found:  # worker processes that are stopped in their work complain
        pass
    return Speed(images / wall, cpu / wall, cpu / images)
