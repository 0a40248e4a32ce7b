"""Photos on their way through the network: cut into windows, sent in full batches, stitched to label maps."""

from __future__ import annotations

import collections
import dataclasses
import itertools
from collections.abc import Callable, Iterator, Sequence
from concurrent import futures
from typing import Any

import jax
import numpy as np
from jaxtyping import Float32, Int32, PyTree

from data_pipelines.examples import Source
from data_pipelines.feature_files import FeatureRecords
from larvseg_jax.errors import UserError
from larvseg_jax.evaluation import sliding_window
from larvseg_jax.evaluation.config import EvalConfig

_PREFETCHED = 4  # photos decoded ahead of the device
_KEPT = 1 << 29  # bytes of values kept for another pass

PatchValues = Callable[[PyTree], PyTree]
"""W windows -> (W, h, w, n) float32 values of their patches; jitted, W fixed."""


class SeveralPasses:
    """`PatchValues` that are asked for the same batches several times: the first of them are computed once.

    Args:
      patch_values: what computes them.
      room: bytes of values that are kept on the host; further batches are computed in each pass.
    """

    def __init__(self, patch_values: PatchValues, room: int = _KEPT) -> None:
        self._patch_values, self._room = patch_values, room
        self._kept: list[Any] = []
        self._next = 0  # number of the next batch of this pass

    def begin(self) -> None:
        """Another pass: the next batch is the first one again."""
        self._next = 0

    def __call__(self, windows: PyTree) -> Any:
        """The values of the next batch, which is of the same windows in every pass."""
        number, self._next = self._next, self._next + 1
        if number < len(self._kept):
            return self._kept[number]
        values = self._patch_values(windows)
        if number == len(self._kept) and values.nbytes <= self._room:
            self._room -= values.nbytes
            if self._kept:  # has arrived, as one batch is in flight beside this one: it need not stay on the device
                self._kept[-1] = np.asarray(self._kept[-1])
            self._kept.append(values)
        return values


@dataclasses.dataclass(frozen=True)
class Photo:
    """A photo on its way through the network.

    Attributes:
      index: its number in the source.
      id: its name.
      label: of its own size, in columns.
      test_size: its height and width at test resolution.
      windows: normalised pictures (s, s, 3), or what the first blocks have made of these (`leading`, `patches`).
    """

    index: int
    id: str
    label: Int32[np.ndarray, "H W"]
    test_size: tuple[int, int]
    windows: Sequence[PyTree]


def label_map(
    logits: Float32[np.ndarray, "n h w k"], test_size: tuple[int, int], size: tuple[int, int], config: EvalConfig
) -> Int32[np.ndarray, "H W"]:
    """Patch logits of a photo's windows -> labels at the photo's own `size` (H, W)."""
    stitched_size = size if config.resize == "logits" else test_size
    stitching = config.windows.stitching(logits.shape[1:3], test_size, stitched_size)
    patches = sliding_window.mosaic(logits, stitching.window_rows)
    labels = sliding_window.predict_label_map(patches, stitching.rows, stitching.columns)
    return sliding_window.resize_label_map(labels, *size) if config.resize == "labels" else labels


def photos_of(
    source: Source, numbers: Sequence[int], config: EvalConfig, stored: FeatureRecords | None = None
) -> Iterator[Photo]:
    """The photos with these numbers in order, decoded and cut a few ahead in threads."""

    def load(index: int) -> Photo:
        example = source[index]
        image = example["image"]
        test_size = config.windows.test_size(image.shape)
        if stored is not None:
            return Photo(index, example["id"], example["label"], test_size, _stored(stored, index, example["id"]))
        return Photo(index, example["id"], example["label"], test_size, list(config.windows.cut(image)))

    with futures.ThreadPoolExecutor(_PREFETCHED) as pool:
        waiting = iter(numbers)
        loading = collections.deque(pool.submit(load, i) for i in itertools.islice(waiting, _PREFETCHED))
        while loading:
            photo = loading.popleft().result()
            loading.extend(pool.submit(load, i) for i in itertools.islice(waiting, 1))
            yield photo


def _stored(stored: FeatureRecords, index: int, photo: str) -> list[dict[str, np.ndarray]]:
    name, windows = stored.windows(index)
    if name != photo:
        raise UserError(
            f"photo {index} is {photo!r}, and the features of the evaluation have {name!r} in its place: make them anew"
        )
    return windows


def photo_values(patch_values: PatchValues, photos: Iterator[Photo], batch: int) -> Iterator[tuple[Photo, Any]]:
    """Sends windows in full batches and gives each photo its windows' values (arrays (n, ...)), in order.

    One batch stays in flight, so that the device computes while the host stitches.
    """
    pending: collections.deque[Photo] = collections.deque()
    windows: list[PyTree] = []  # not sent yet
    in_flight: collections.deque[Any] = collections.deque()  # sent, not fetched
    arrived: collections.deque[PyTree] = collections.deque()  # fetched, kept for the rest of the photo

    def finished(at_most: int) -> Iterator[tuple[Photo, Any]]:
        while len(in_flight) > at_most:
            values = jax.tree.map(np.asarray, in_flight.popleft())
            arrived.extend(jax.tree.map(lambda x, i=i: x[i], values) for i in range(batch))
        while pending and len(pending[0].windows) <= len(arrived):
            photo = pending.popleft()
            yield photo, _stack([arrived.popleft() for _ in photo.windows])

    for photo in photos:
        pending.append(photo)
        windows.extend(photo.windows)
        while len(windows) >= batch:
            in_flight.append(patch_values(_stack(windows[:batch])))
            del windows[:batch]
            yield from finished(at_most=1)
    if windows:
        filler = [jax.tree.map(np.zeros_like, windows[0])] * (batch - len(windows))
        in_flight.append(patch_values(_stack(windows + filler)))
    yield from finished(at_most=0)


def _stack(items: Sequence[PyTree]) -> PyTree:
    return jax.tree.map(lambda *x: np.stack(x), *items)
