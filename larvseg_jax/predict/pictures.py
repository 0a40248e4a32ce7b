"""One picture, however it is given (path, Pillow, NumPy), as 8-bit RGB; what cannot be is refused in one line."""

from __future__ import annotations

import os
import re
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import UInt8
from PIL import Image, ImageOps

from data_pipelines.decode import decode_image, eight_bits
from data_pipelines.files import read_bytes
from data_pipelines.picture_files import MAX_MEGAPIXELS, REPLACE
from larvseg_jax.console import printable
from larvseg_jax.errors import DataError, UserError

_ADDRESS = re.compile(r"[A-Za-z][A-Za-z0-9+.-]+:/|data:")  # of Windows' drives the name is one letter
_REMEDY = "give a path, a PIL image or a NumPy array (height, width, 3)"


def check_is_path(text: str) -> None:
    """UserError for the address of something that is not on this machine."""
    if _ADDRESS.match(text):
        raise UserError(f"{printable(text)[:80]} is an address and no file: download it first and give its path")


def read_photo(path: Path, max_megapixels: int = MAX_MEGAPIXELS) -> UInt8[np.ndarray, "h w 3"]:
    """A photo in a file as RGB, turned as its EXIF tag says; UserError with a remedy for one photo among others."""
    name = printable(path)
    if path.is_dir():
        raise UserError(f"{name}: is a folder and no file: give the pictures in it")
    try:
        return decode_image(read_bytes(path), name, max_megapixels)
    except DataError as error:
        what = error.what.replace(str(path), name)
        raise UserError(f"{what}: {'give another photo' if error.remedy == REPLACE else error.remedy}") from error


def as_rgb(picture: Any, max_megapixels: int = MAX_MEGAPIXELS) -> UInt8[np.ndarray, "h w 3"]:
    """A picture as 8-bit RGB: grey in three equal channels, without transparency, turned as an EXIF tag says.

    Args:
      picture: path, PIL image, or array of uint8, uint16 or floats in 0..1: (h, w), (h, w, 1), (h, w, 3) or (h, w, 4).
      max_megapixels: the largest file that is read, millions of pixels.

    Raises:
      UserError: it is anything else, cannot be read, or is an address on the net.
    """
    if isinstance(picture, (str, os.PathLike)):
        text = os.fsdecode(os.fspath(picture))
        check_is_path(text)
        path = Path(text).expanduser()
        if not path.exists():
            raise UserError(f"there is no picture {printable(path)}: {_REMEDY}")
        return read_photo(path, max_megapixels)
    if isinstance(picture, Image.Image):
        return _of_pillow(picture)
    if isinstance(picture, np.ndarray):
        return _of_array(picture)
    raise UserError(f"a picture cannot be a {type(picture).__module__}.{type(picture).__qualname__}: {_REMEDY}")


def _of_pillow(picture: Image.Image) -> UInt8[np.ndarray, "h w 3"]:
    try:
        turned = ImageOps.exif_transpose(picture)
    except Exception as error:  # whatever Pillow's plugins trip over when the file is read at last
        raise UserError(f"a PIL image cannot be read ({' '.join(str(error).split())}): give another photo") from error
    if turned.mode.startswith("I") or turned.mode == "F":
        return _of_array(_whole_numbers(np.asarray(turned)))
    if turned.mode == "P":
        turned = turned.convert("RGBA")  # Pillow warns of palettes with transparency
    return np.array(turned.convert("RGB"))


def _whole_numbers(values: np.ndarray) -> np.ndarray:
    """32-bit integers, as Pillow keeps some pictures of 16 bits, as what they are."""
    fits = values.dtype.kind in "iu" and values.size and values.min() >= 0 and values.max() < 2**16
    return values.astype(np.uint16) if fits else values


def _of_array(values: np.ndarray) -> UInt8[np.ndarray, "h w 3"]:
    shape = values.shape
    if values.ndim == 3 and shape[0] in (1, 3, 4) and shape[2] not in (1, 3, 4):
        raise UserError(f"a picture has shape {shape}, channels first: give array.transpose(1, 2, 0)")
    if values.ndim not in (2, 3) or (values.ndim == 3 and shape[2] not in (1, 3, 4)) or 0 in shape:
        hint = "give a list of pictures" if values.ndim == 4 else "give (height, width), or with 3 or 4 channels last"
        raise UserError(f"a picture has shape {shape}: {hint}")
    if values.ndim == 2:
        values = values[..., None]
    rgb = np.repeat(values, 3, axis=2) if values.shape[2] == 1 else values[..., :3]
    if values.dtype == np.uint8:
        return np.ascontiguousarray(rgb)
    if values.dtype == np.uint16:
        return eight_bits(rgb)
    if values.dtype.kind != "f":
        raise UserError(f"a picture has dtype {values.dtype}: give uint8, uint16, or floats in 0..1")
    low, high = float(rgb.min()), float(rgb.max())
    if not (low >= 0 and high <= 1):  # also where one of them is no number
        raise UserError(f"a picture of {values.dtype} has values from {low:g} to {high:g}: bring them into 0..1")
    return np.rint(rgb * 255).astype(np.uint8)
