"""One photo of a download: checked, and as the TFDS example that is stored."""

from __future__ import annotations

import collections
import dataclasses
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from jaxtyping import UInt16

from data_pipelines import decode
from data_pipelines.picture_files import MAX_MEGAPIXELS
from larvseg_jax.errors import DataError, UserError

IGNORE = 65535
"""Value of pixels without class."""


@dataclasses.dataclass(frozen=True)
class Photo:
    """One photo as it was downloaded.

    Attributes:
      id: name of the photo, unique in its split.
      image: bytes of the picture file, untouched.
      mask: class ids, 65535 = ignore, as large as the picture is once turned as its EXIF tag says; None in
        data sets without masks.
      tags: class ids of the photo; None: those of the mask.
      captions: of the photo; None in data sets with classes.
      file: the picture file as the user knows it, for messages; empty: the id.
    """

    id: str
    image: bytes
    mask: UInt16[np.ndarray, "h w"] | None
    tags: tuple[int, ...] | None = None
    file: str = ""
    captions: tuple[str, ...] | None = None


class Unreadable(Exception):
    """A photo that cannot be used because a file is missing or broken: left out, counted and listed.

    Attributes:
      file: the file as the user knows it (path below the root, or member of an archive).
      reason: what is wrong with it, one line.
    """

    def __init__(self, file: str | Path, reason: object) -> None:
        self.file, self.reason = str(file), " ".join(str(reason).split())
        super().__init__(self.file, self.reason)


@dataclasses.dataclass
class Tally:
    """What was seen in some photos.

    Attributes:
      photos: how many are stored.
      classes: class id -> number of stored photos that have it.
      unreadable: those left out, as {"file": ..., "reason": ...}.
    """

    photos: int = 0
    classes: collections.Counter[int] = dataclasses.field(default_factory=collections.Counter)
    unreadable: list[dict[str, str]] = dataclasses.field(default_factory=list)

    def count(self, tags: Sequence[int]) -> None:
        """One more photo that is stored."""
        self.photos += 1
        self.classes.update(tags)

    def leave_out(self, photo: Unreadable) -> None:
        """One more photo that is not."""
        self.unreadable.append({"file": photo.file, "reason": photo.reason})

    def photos_per_class(self, class_count: int) -> list[int]:
        """Stored photos of every class, by class id."""
        return [self.classes[i] for i in range(class_count)]


def example(photo: Photo, class_count: int, max_megapixels: int = MAX_MEGAPIXELS) -> dict[str, Any]:
    """The photo as TFDS stores it: id, image (bytes as they are), tags and, if it has a mask, mask (16-bit PNG).

    Of a photo with captions: id, image and these.

    Raises:
      Unreadable: the picture cannot be decoded to its end, or has more than `max_megapixels` million pixels.
      UserError: mask of another size than the picture, or a class id outside 0..class_count-1.
    """
    name = photo.file or photo.id
    record: dict[str, Any] = {"id": photo.id, "image": photo.image}
    tags = photo.tags
    if photo.captions is not None:
        check_readable(photo.image, name, max_megapixels)
        return record | {"captions": list(photo.captions)}
    if photo.mask is None:
        check_readable(photo.image, name, max_megapixels)
    else:
        mask_classes = _classes_of(photo.mask, _size(photo.image, name, max_megapixels), class_count, name)
        tags = mask_classes if tags is None else tags
        record["mask"] = mask_png(photo.mask)
    if tags is None:
        raise UserError(f"photo {name} has neither mask nor tags: its builder must give one of them")
    record["tags"] = sorted(set(tags))
    wrong = [tag for tag in record["tags"] if not 0 <= tag < class_count]
    if wrong:
        raise UserError(f"photo {name}: image label {wrong[0]} is not among the classes 0..{class_count - 1}")
    return record


def check_readable(data: bytes, name: str, max_megapixels: int = MAX_MEGAPIXELS) -> None:
    """Unreadable unless decode_image reads the picture (see decode.check_readable)."""
    try:
        decode.check_readable(data, name, max_megapixels)
    except DataError as error:
        raise _unreadable(data, name, error) from error


def _size(data: bytes, name: str, max_megapixels: int) -> tuple[int, int]:
    """Height and width of a picture that is decoded in full."""
    try:
        height, width, _ = decode.decode_image(data, name, max_megapixels).shape
    except DataError as error:
        raise _unreadable(data, name, error) from error
    return height, width


def _unreadable(data: bytes, name: str, error: DataError) -> Unreadable:
    return Unreadable(name, error.what.removeprefix(f"{name}: ") if data else "empty file")


def _classes_of(mask: UInt16[np.ndarray, "h w"], size: tuple[int, int], class_count: int, name: str) -> tuple[int, ...]:
    """Ascending class ids of a mask; UserError if it does not fit the picture or the class list."""
    if mask.shape != size:
        raise UserError(
            f"photo {name}: its mask has {mask.shape[1]}x{mask.shape[0]} pixels, the picture {size[1]}x{size[0]}: "
            "replace one of the two files"
        )
    present = np.flatnonzero(np.bincount(mask.ravel(), minlength=IGNORE + 1)).tolist()
    if present and present[-1] == IGNORE:
        present.pop()
    if present and present[-1] >= class_count:
        row, column = np.argwhere(mask == present[-1])[0]
        raise UserError(
            f"photo {name}: value {present[-1]} of its mask at row {row}, column {column} is not among the classes "
            f"0..{class_count - 1} nor {IGNORE} (ignore): replace the file"
        )
    return tuple(present)


def mask_png(mask: UInt16[np.ndarray, "h w"]) -> bytes:
    """A 16-bit PNG whose settings make it fast to read; its few kilobytes may double."""
    settings = (cv2.IMWRITE_PNG_COMPRESSION, 1, cv2.IMWRITE_PNG_FILTER, cv2.IMWRITE_PNG_FILTER_NONE)
    return cv2.imencode(".png", mask, settings)[1].tobytes()
