"""Looks at photos, masks and tags one by one, and sums up what they show."""

from __future__ import annotations

import collections
import dataclasses
import os
from collections.abc import Callable, Iterator, Sequence
from concurrent import futures
from typing import TypeVar

import cv2
import numpy as np
from jaxtyping import Int32, Integer

from data_pipelines.caption_lists import caption_faults
from data_pipelines.decode import check_readable, deep_image, used_bits
from data_pipelines.examples import RawPhoto, Reads, is_class_id, tag_faults
from data_pipelines.faults import Fault
from data_pipelines.mask_evidence import smeared
from data_pipelines.orientation import exif_remark, turned_mask
from larvseg_jax.console import track
from larvseg_jax.doctor.photo_sets import PhotoSet
from larvseg_jax.errors import DataError
from larvseg_jax.vocabulary import IGNORE_LABEL

T = TypeVar("T")

_EXAMPLES = 64  # of a class


@dataclasses.dataclass(frozen=True)
class View:
    """How a stream, or the evaluation, sees a data set.

    Attributes:
      columns: column of every class id of the data set, IGNORE_LABEL for classes it does not know.
      reads: what it reads besides the photos.
      max_labels: most tags of one photo; None where tags do not matter.
      always_tags: columns that every photo has as tags besides its own.
    """

    columns: Int32[np.ndarray, " classes"]
    reads: Reads
    max_labels: int | None = None
    always_tags: tuple[int, ...] = ()


@dataclasses.dataclass(frozen=True)
class Look:
    """One photo.

    Attributes:
      id: of the photo.
      number: its place in the set.
      classes: class ids of the data set in its mask or among its tags.
      tags: number of its tags as the stream counts them.
      stored_bytes: of its files.
      compared: whether mask and tags could be compared.
      pixels: of its mask, by the classes in `classes`; empty without a mask.
      faults: what is wrong with it.
    """

    id: str
    number: int
    classes: tuple[int, ...]
    tags: int
    stored_bytes: int
    compared: bool
    pixels: tuple[int, ...]
    faults: tuple[Fault, ...]


@dataclasses.dataclass
class Scan:
    """What some photos of a set show together.

    Attributes:
      looked_at: number of photos, of so many in `total`.
      photos_per_class: by class id of the data set.
      pixels_per_class: in the masks, likewise.
      examples: numbers of some of the photos that show a class, spread over all of them, likewise.
      most_tags: largest number of tags of one photo, and its id.
      compared: photos whose mask and tags could be compared.
      faults: all that is wrong.
      stored_bytes: of the photos looked at.
    """

    total: int
    looked_at: int = 0
    photos_per_class: collections.Counter[int] = dataclasses.field(default_factory=collections.Counter)
    pixels_per_class: collections.Counter[int] = dataclasses.field(default_factory=collections.Counter)
    examples: dict[int, list[int]] = dataclasses.field(default_factory=dict)
    most_tags: tuple[int, str] = (0, "")
    compared: int = 0
    faults: list[Fault] = dataclasses.field(default_factory=list)
    stored_bytes: int = 0
    _strides: dict[int, int] = dataclasses.field(default_factory=dict)

    @property
    def complete(self) -> bool:
        """Whether every photo was looked at."""
        return self.looked_at == self.total

    def add(self, look: Look) -> None:
        """One more photo."""
        self.looked_at += 1
        self.photos_per_class.update(look.classes)
        self.pixels_per_class.update(dict(zip(look.classes, look.pixels, strict=False)))
        for class_id in look.classes:
            self._keep(class_id, look.number)
        self.most_tags = max(self.most_tags, (look.tags, look.id), key=lambda pair: pair[0])
        self.compared += look.compared
        self.faults += look.faults
        self.stored_bytes += look.stored_bytes

    def _keep(self, class_id: int, number: int) -> None:
        """One more example of a class: of all its photos, of every second one, of every fourth, as they grow many."""
        kept = self.examples.setdefault(class_id, [])
        stride = self._strides.setdefault(class_id, 1)
        if (self.photos_per_class[class_id] - 1) % stride == 0:
            kept.append(number)
        if len(kept) > _EXAMPLES:
            del kept[1::2]
            self._strides[class_id] = 2 * stride


def scan(photos: PhotoSet, view: View, most: int | None, name: str) -> Scan:
    """Looks at `most` photos spread evenly over the set (None: all), in threads, behind a progress bar."""
    numbers = spread(photos.count, most)
    result = Scan(photos.count)
    looks = in_threads(lambda i: look_at(photos, i, view), numbers)
    for look in track(looks, len(numbers), name):
        result.add(look)
    return result


def spread(total: int, most: int | None) -> Sequence[int]:
    """Up to `most` numbers from 0 to total-1, evenly spread and always the same."""
    if most is None or most >= total:
        return range(total)
    return np.unique(np.linspace(0, total - 1, most).round().astype(int)).tolist()


def in_threads(function: Callable[[int], T], items: Sequence[int]) -> Iterator[T]:
    """function(item) in the order of the items; only a few results wait at any time."""
    threads = os.cpu_count() or 1
    with futures.ThreadPoolExecutor(threads) as pool:
        waiting: collections.deque[futures.Future[T]] = collections.deque()
        try:
            for item in items:
                waiting.append(pool.submit(function, item))
                if len(waiting) > 4 * threads:
                    yield waiting.popleft().result()
            while waiting:
                yield waiting.popleft().result()
        finally:
            pool.shutdown(wait=False, cancel_futures=True)


def look_at(photos: PhotoSet, index: int, view: View) -> Look:
    """Reads and checks one photo; never raises DataError."""
    try:
        photo = photos.read(index)
    except DataError as error:
        return Look(f"number {index}", index, (), 0, 0, False, (), (Fault.of(error),))
    faults: list[Fault] = []
    classes: tuple[int, ...] = ()
    pixels: tuple[int, ...] = ()
    mask = None
    if photo.mask is None:
        try:
            check_readable(photo.image, photo.image_name, photos.max_megapixels)
        except DataError as error:
            faults.append(Fault.of(error))
        if photo.tags is not None:
            classes, wrong = _checked_tags(photo, photos)
            faults += wrong
    else:
        mask, found = _checked_mask(photo, photos)
        faults += found
        if mask is not None:
            classes, pixels, found = _classes_of(mask, photo, photos)
            faults += found
    faults += _few_bits(photo)
    readable = not any(fault.kind in ("unreadable", "lossy") for fault in faults)
    readable &= photo.mask is None or mask is not None
    tags = 0
    if view.reads == "captions":
        faults += caption_faults(photo.captions, photo.image_name)
    elif readable:
        columns = np.unique(view.columns[list(classes)]) if classes else np.zeros(0, np.int32)
        columns = columns[columns != IGNORE_LABEL]
        tags = len(np.union1d(columns, np.array(view.always_tags, np.int32)))
        faults += _supervision(photo, view, len(columns), tags)
    compared = readable and mask is not None and bool(photo.tags)
    if compared:
        faults += _contradiction(photo, classes, photos)
    stored = len(photo.image) + len(photo.mask or b"")
    return Look(photo.id, index, classes, tags, stored, compared, pixels, tuple(faults))


def _checked_tags(photo: RawPhoto, photos: PhotoSet) -> tuple[tuple[int, ...], list[Fault]]:
    """Class ids of a photo's tags, and those that are none."""
    assert photo.tags is not None
    count = len(photos.names)
    good = tuple(i for i in photo.tags if is_class_id(i, count))
    return good, tag_faults(photo.tags, count, photo.image_name, str(photos.directory))


def _checked_mask(photo: RawPhoto, photos: PhotoSet) -> tuple[Integer[np.ndarray, "h w"] | None, list[Fault]]:
    """The decoded mask, None if there is none; photo and mask must be readable and of one size."""
    faults = []
    image = mask = None
    try:
        image = photos.decode_image(photo)
    except DataError as error:
        faults.append(Fault.of(error))
    try:
        mask = photos.decode_mask(photo)
    except DataError as error:
        faults.append(Fault.of(error))
    if image is not None and mask is not None:
        remark = exif_remark(mask.shape, image.shape[:2], photo.image)
        faults += [Fault("turned", f"{photo.image_name}: {remark}")] if remark else []
        mask = turned_mask(mask, image.shape[:2], photo.image)
    if image is not None and mask is not None and image.shape[:2] != mask.shape:
        sizes = f"mask of {mask.shape[1]}x{mask.shape[0]} pixels, photo of {image.shape[1]}x{image.shape[0]}"
        faults.append(Fault("size", f"{photo.mask_name}: {sizes}"))
    return mask, faults


def _few_bits(photo: RawPhoto) -> list[Fault]:
    """Whether 16 bits are stored and fewer used."""
    try:
        deep = deep_image(photo.image)
    except cv2.error:  # reported already
        return []
    bits = 16 if deep is None else used_bits(deep)
    if deep is None or bits == 16:
        return []
    what = f"16 bits, its largest value is {deep.max():,}: read as {bits} bits, not to be dark"
    return [Fault("few bits", f"{photo.image_name}: {what}")]


def _classes_of(
    mask: Integer[np.ndarray, "h w"], photo: RawPhoto, photos: PhotoSet
) -> tuple[tuple[int, ...], tuple[int, ...], list[Fault]]:
    """Class ids in a mask with their pixels, and every value that is none."""
    values, pixels = np.unique(mask, return_counts=True) if mask.dtype.itemsize > 2 else _counted(mask)
    is_class = (values >= 0) & (values < len(photos.names))
    classes, of_classes = tuple(values[is_class].tolist()), tuple(pixels[is_class].tolist())
    faults = []
    unknown = (values < 0) | (values >= len(photos.names))
    unknown &= values != (-1 if photos.ignore is None else photos.ignore)
    wrong = np.isin(mask, values[unknown])
    if smeared(mask, wrong):
        what = f"{np.count_nonzero(unknown)} values that are no class, strewn over {np.count_nonzero(wrong):,} pixels"
        what = f"{photo.mask_name}: {what}, as JPEG or smooth resizing leaves them"
        return classes, of_classes, [Fault("lossy", what)]
    allowed = f"0..{len(photos.names) - 1}" + ("" if photos.ignore is None else f" nor {photos.ignore} (ignore)")
    for value, number in zip(values.tolist(), pixels.tolist(), strict=True):
        if not 0 <= value < len(photos.names) and value != photos.ignore:
            row, column = np.argwhere(mask == value)[0]
            where = f"at row {row}, column {column} ({number:,} such pixels)"
            faults.append(Fault("value", f"{photo.mask_name}: value {value} {where} is not among {allowed}"))
    return classes, of_classes, faults


def _counted(mask: Integer[np.ndarray, "h w"]) -> tuple[Integer[np.ndarray, " v"], Integer[np.ndarray, " v"]]:
    """np.unique of small numbers without sorting."""
    pixels = np.bincount(mask.ravel())
    values = np.flatnonzero(pixels)
    return values, pixels[values]


def _supervision(photo: RawPhoto, view: View, columns: int, tags: int) -> list[Fault]:
    """Whether the stream can learn from this photo, given how many of its classes it knows."""
    name = photo.mask_name if photo.mask is not None else photo.image_name
    if not columns:
        kind = "empty" if photo.mask is not None else "untagged"
        return [Fault(kind, f"{name}: nothing in it that the stream knows")]
    if view.max_labels is not None and tags > view.max_labels:
        return [Fault("many tags", f"{name}: {tags} tags, and max_labels is {view.max_labels}")]
    return []


def _contradiction(photo: RawPhoto, classes: tuple[int, ...], photos: PhotoSet) -> list[Fault]:
    """Tags that the photo's own mask does not show."""
    absent = [f"{i} ({photos.names[i]})" for i in photo.tags or () if i not in classes and 0 <= i < len(photos.names)]
    if not absent:
        return []
    shown = ", ".join(f"{i} ({photos.names[i]})" for i in classes[:6]) or "no class"
    return [Fault("contradiction", f"{photo.mask_name}: tagged {', '.join(absent[:6])}; the mask shows {shown}")]
