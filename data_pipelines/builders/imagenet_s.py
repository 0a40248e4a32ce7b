"""ImageNet-S: masks of 919 synsets of ImageNet-1k, and the pictures of the user's own ImageNet-1k (docs/data.md).

Masks, at `root` or in its folder ImageNetS919, unpacked or in the archive ImageNetS919*.zip or .tar:

    validation-segmentation/<synset>/<picture>.png      and train-semi-segmentation/ likewise

Pictures, in the first of the places of `_PHOTOS` that has any of them; each in a folder of its synset or, as in
ImageNet-1k's own archive of validation pictures, without. ImageNet-S counts the pictures of five synsets with
five others: these lie under either name.
"""

from __future__ import annotations

import collections
import re
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
from jaxtyping import Int32

from data_pipelines.builders.download_builder import DownloadBuilder, each, in_pieces
from data_pipelines.builders.encodings import Encoding, open_mask
from data_pipelines.builders.mask_builder import turned_with
from data_pipelines.builders.packed_files import Files, open_files
from data_pipelines.builders.records import IGNORE, Photo, Unreadable
from larvseg_jax.console import first_few
from larvseg_jax.errors import UserError
from larvseg_jax.vocabulary.class_lists import class_list, raw

_KEY = "imagenet_s_919"
_NAME = "ImageNetS919"
_MASK_FOLDERS = {"train": "train-semi-segmentation", "val": "validation-segmentation"}
_PHOTOS = {
    "train": ("train-semi", f"{_NAME}/train-semi", "train", f"{_NAME}/train", "ILSVRC/Data/CLS-LOC/train"),
    "val": (
        *("validation", f"{_NAME}/validation", "val", "ILSVRC2012_img_val", "ILSVRC/Data/CLS-LOC/val"),
        "ILSVRC2012_img_val.tar",
    ),
}
_PHOTOS_PER_PIECE = 300


class MaskedPictures(NamedTuple):
    """A piece: pictures of one split.

    Attributes:
      masks, photos: folder or archive that holds them.
      files: (id, picture, mask), the files relative to these.
    """

    masks: Path
    photos: Path
    files: tuple[tuple[str, str, str], ...]


class _Masks(NamedTuple):
    """The masks of a split: where they are, and (synset, picture) -> file."""

    files: Files
    found: dict[tuple[str, str], str]


def _values(data: bytes, name: str, max_megapixels: int) -> Int32[np.ndarray, "h w"]:
    """Red + 256 * green, as the authors store them; blue is 0."""
    picture = open_mask(data, name, max_megapixels)
    remedy = f"take it from the original {_NAME} archive"
    if picture.mode != "RGB":
        raise UserError(f"{name}: a mask of ImageNet-S has the channels RGB, this one has {picture.mode}: {remedy}")
    pixels = np.asarray(picture).astype(np.int32)
    if pixels[..., 2].any():
        row, column = np.argwhere(pixels[..., 2])[0]
        raise UserError(
            f"{name}: blue is {pixels[row, column, 2]} at row {row}, column {column}, and 0 in all masks of "
            f"ImageNet-S: {remedy}"
        )
    return pixels[..., 0] + 256 * pixels[..., 1]


def _meanings() -> dict[int, int]:
    """1 to 919 are the synsets in order, 0 is what is none of them, 1000 is ignored."""
    classes = class_list(_KEY)
    return {0: len(classes), 1000: IGNORE} | {label + 1: label for label in range(len(classes))}


class ImageNetS(DownloadBuilder):
    """ImageNet-S-919: pictures of ImageNet-1k with masks of 919 synsets, and a class "other" that is none of them."""

    CLASS_LIST = _KEY
    EXPECTED = {"train": 9_190, "val": 12_419}
    ENCODING = Encoding(_meanings, _values)

    def layout(self, root: Path) -> str:
        """Which splits have pictures, and where; UserError if none has."""
        found = _all_masks(root)
        photos = {split: _photos(root, split, masks) for split, masks in found.items()}
        parts = [f"pictures of {split} in {files.path.name}" for split, files in photos.items() if files]
        if not parts:
            raise UserError(
                f"{root}: masks of ImageNet-S, but no picture of ImageNet-1k for any of them (looked in "
                f"{', '.join(_PHOTOS['val'])}): put or link the folder val of ImageNet-1k there, see docs/data.md"
            )
        return f"masks in {next(iter(found.values())).files.path.name}, {', '.join(parts)}"

    def pieces(self, root: Path) -> dict[str, Sequence[MaskedPictures]]:
        """Split -> pictures with their masks; UserError where synsets or pictures are missing."""
        pieces: dict[str, Sequence[MaskedPictures]] = {}
        for split, masks in _all_masks(root).items():
            photos = _photos(root, split, masks)
            if photos is None:
                continue
            _check_synsets(split, masks)
            files = _matched(masks, photos)
            pieces[split] = [
                MaskedPictures(masks.files.path, photos.path, tuple(group))
                for group in in_pieces(files, _PHOTOS_PER_PIECE)
            ]
        return pieces

    def photos(self, piece: MaskedPictures) -> Iterator[Photo | Unreadable]:
        """The pictures of a piece with their masks."""
        masks, photos = open_files(piece.masks), open_files(piece.photos)

        def read(file: tuple[str, str, str]) -> Photo:
            photo_id, photo, mask = file
            image = photos.read(photo)
            ids = self.ENCODING.read(masks.read(mask), masks.where(mask), self.max_megapixels)
            return Photo(photo_id, image, turned_with(image, ids), file=photos.where(photo))

        return each(read, piece.files)

    def remarks(self, root: Path) -> list[str]:
        """Which splits lack their pictures or masks."""
        found = _all_masks(root)
        with_photos = {split for split, masks in found.items() if _photos(root, split, masks)}
        return [
            f"no split {split!r}: its {'pictures' if split in found else 'masks'} are not here"
            for split in self.EXPECTED
            if split not in with_photos
        ]


def _all_masks(root: Path) -> dict[str, _Masks]:
    """The masks of every split that has some; UserError if none has."""
    archives = sorted(path for ending in ("zip", "tar") for path in root.glob(f"{_NAME}*.{ending}"))
    for path in (root, root / _NAME, *archives):
        if path.exists():
            files = open_files(path)
            found = {split: _listed(files, folder) for split, folder in _MASK_FOLDERS.items()}
            if any(found.values()):
                return {split: _Masks(files, masks) for split, masks in found.items() if masks}
    raise UserError(
        f"{root}: no masks of ImageNet-S, neither {_NAME}/validation-segmentation/<synset>/*.png nor the archive "
        f"{_NAME}*.zip: give the folder that holds one of them, see docs/data.md"
    )


def _listed(files: Files, folder: str) -> dict[tuple[str, str], str]:
    """(synset, picture) -> mask, in order, of the masks in a folder; of an archive wherever it has that folder."""
    inside = folder if files.path.is_dir() else ""
    pattern = re.compile(rf"(?:.*/)?{folder}/(n\d{{8}})/([^/]+)\.png")
    matches = (pattern.fullmatch(name) for name in files.names(inside))
    return dict(sorted(((m[1], m[2]), m[0]) for m in matches if m))


def _photos(root: Path, split: str, masks: _Masks) -> Files | None:
    """The first place that has a picture of some mask."""
    for place in _PHOTOS[split]:
        path = root / place
        if path.exists():
            files = open_files(path)
            if any(_photo_of(files, *mask) for mask in masks.found):
                return files
    return None


def _photo_of(photos: Files, synset: str, picture: str) -> str | None:
    """The file of a picture, in a folder of its synset, of the one it is counted with, or in none."""
    merged = [other for other, into in raw(_KEY)["merged"].items() if into == synset]
    names = (f"{folder}{picture}.JPEG" for folder in (f"{synset}/", "", *(f"{other}/" for other in merged)))
    return next((name for name in names if photos.has(name)), None)


def _check_synsets(split: str, masks: _Masks) -> None:
    """UserError unless the masks are of the 919 synsets, whose number in the list is their value."""
    known, found = set(class_list(_KEY).ids), {synset for synset, _ in masks.found}
    missing, unknown = sorted(known - found), sorted(found - known)
    texts = [f"{len(missing)} of its {len(known)} have none ({first_few(missing, 3)})"] * bool(missing)
    texts += [f"{len(unknown)} are none of these ({first_few(unknown, 3)})"] * bool(unknown)
    if texts:
        raise UserError(
            f"{masks.files.path}, {_MASK_FOLDERS[split]}: masks of {len(found)} synsets, but {' and '.join(texts)}: "
            f"unpack {_NAME} anew (ImageNet-S50 and -S300 number their synsets otherwise)"
        )


def _matched(masks: _Masks, photos: Files) -> list[tuple[str, str, str]]:
    """(id, picture, mask) of every mask by synset and name; UserError if a picture is missing, or has two masks."""
    files, missing = [], []
    for (synset, picture), mask in masks.found.items():
        photo = _photo_of(photos, synset, picture)
        if photo is None:
            missing.append(f"{synset}/{picture}.JPEG")
        else:
            files.append((picture, photo, mask))
    if missing:
        raise UserError(
            f"{photos.path}: {len(missing):,} of {len(masks.found):,} pictures are missing, the first is "
            f"{missing[0]}, which has a mask: complete it from ImageNet-1k"
        )
    picture, count = collections.Counter(picture for picture, _, _ in files).most_common(1)[0]
    if count > 1:
        raise UserError(f"{masks.files.path}: {count} masks are of the picture {picture}: leave the right one there")
    return files
