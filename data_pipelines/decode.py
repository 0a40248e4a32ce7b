"""Bytes of a picture file -> arrays, with what files in the wild need."""

from __future__ import annotations

import io

import cv2
import numpy as np
from jaxtyping import Integer, UInt8, UInt16
from PIL import Image

from data_pipelines.jpeg import upright_jpeg
from data_pipelines.picture_files import MAX_MEGAPIXELS, check_sides, check_size, unreadable
from larvseg_jax.errors import DataError

_PNG = b"\x89PNG\r\n\x1a\n"
_TIFF = (b"II*\0", b"MM\0*")
_JPEG = b"\xff\xd8\xff"
_MODES = {"F": "of floating-point values (F)", "CMYK": "for print (CMYK)", "LA": "grey with transparency (LA)"}

cv2.utils.logging.setLogLevel(cv2.utils.logging.LOG_LEVEL_SILENT)  # what is wrong with a file is said by us, once


def decode_image(data: bytes, name: str, max_megapixels: int = MAX_MEGAPIXELS) -> UInt8[np.ndarray, "h w 3"]:
    """Decode a photo to 8-bit RGB, to the levels that the original's OpenCV gives, turned as its EXIF tag says.

    Grey becomes three equal channels, transparency is dropped, CMYK converted, 16 bits cut to 8: to the highest of
    those that the photo uses, as cameras and scanners store 10 to 14 bits in 16 (`Original:` always the highest of 16).

    Args:
      data: the bytes of the file (JPEG, PNG, ...).
      name: file name for the error message.
      max_megapixels: the largest picture that is decoded, millions of pixels.

    Raises:
      DataError: not a picture, cut short, or too large.
    """
    check_size(data, name, max_megapixels)
    upright = upright_jpeg(data)
    if upright is not None:
        return upright
    try:
        deep = deep_image(data)
        image = cv2.imdecode(np.frombuffer(data, np.uint8), cv2.IMREAD_COLOR_RGB) if deep is None else None
    except cv2.error:
        deep = image = None
    if deep is not None:
        return eight_bits(deep)
    if image is None:
        raise unreadable(data, name)
    return image


def deep_image(data: bytes) -> UInt16[np.ndarray, "h w 3"] | None:
    """The 16-bit RGB of a PNG or TIFF that has it, turned as its EXIF tag says; None for all other files."""
    if not (data.startswith(_TIFF) or (data.startswith(_PNG) and data[24:25] == b"\x10")):
        return None
    # Not as RGB: OpenCV 5.0 swaps the bytes of 16-bit TIFFs then.
    image = cv2.imdecode(np.frombuffer(data, np.uint8), cv2.IMREAD_COLOR | cv2.IMREAD_ANYDEPTH)
    return image[..., ::-1] if image is not None and image.dtype == np.uint16 else None


def eight_bits(deep: UInt16[np.ndarray, "h w 3"]) -> UInt8[np.ndarray, "h w 3"]:
    """The highest 8 of the bits that a photo uses."""
    return (deep >> np.uint16(used_bits(deep) - 8)).astype(np.uint8)


def used_bits(deep: UInt16[np.ndarray, "h w 3"]) -> int:
    """How many of the 16 bits a photo uses: 8, 10, 12, 14 or 16."""
    bits = next(bits for bits in (8, 10, 12, 14, 16) if not deep.max(initial=0) >> bits)
    return 16 if bits > 8 and not (deep % 257).any() else bits  # 8 bits times 257 are dark, not fewer


def check_readable(data: bytes, name: str, max_megapixels: int = MAX_MEGAPIXELS) -> None:
    """As sure as decode_image, at a third to a half of the time.

    Every byte of a JPEG is decoded, but to an eighth of its size, by the library that reads it later; it finds
    files that are cut short by a single byte.

    Raises:
      DataError: not a picture, cut short, or too large.
    """
    check_size(data, name, max_megapixels)
    try:
        if cv2.imdecode(np.frombuffer(data, np.uint8), cv2.IMREAD_REDUCED_COLOR_8) is not None:
            return
    except cv2.error:  # also of good pictures of under 8 pixels
        pass
    decode_image(data, name, max_megapixels)


def decode_mask(
    data: bytes, name: str, max_megapixels: int = MAX_MEGAPIXELS, *, grey_in_colour: bool = False
) -> Integer[np.ndarray, "h w"]:
    """Decode a mask of class ids by Pillow: uint8, uint16, or int32 if values need it.

    Palette pictures (PASCAL VOC) give the indices, not the colours; 1-, 2- and 4-bit ones the
    stored numbers. Never turned by EXIF.

    Args:
      data: the bytes of the file.
      name: file name for the error message.
      grey_in_colour: read a colour picture whose channels are all alike, too: its one channel.

    Raises:
      DataError: not a picture, cut short, too large, lossily compressed, or coloured.
    """
    lossy = "JPEG" if data.startswith(_JPEG) else "lossy WebP" if data[8:16] == b"WEBPVP8 " else ""
    if lossy:
        check_size(data, name, max_megapixels)
        remedy = "export it anew, as PNG (one that is converted keeps the changed values)"
        raise DataError("lossy", f"{name}: is a {lossy}, which changes the numbers of a mask", remedy)
    with open_mask(data, name, max_megapixels) as picture:
        mode, mask = picture.mode, np.asarray(picture)
    if mode in ("RGB", "RGBA", "LA"):
        mask = _one_channel(mask[..., : 1 if mode == "LA" else 3], mode, name, grey_in_colour)
    if mask.ndim != 2 or mask.dtype.kind == "f":
        raise DataError(
            "unreadable",
            f"{name}: a mask needs one channel of class ids, this one is {_MODES.get(mode, mode)}",
            "convert it",
        )
    if mask.dtype == np.bool_:
        return mask.astype(np.uint8)
    if mask.dtype == np.int32 and mask.min(initial=0) >= 0 and mask.max(initial=0) < 2**16:
        return mask.astype(np.uint16)
    if data.startswith(_PNG) and data[25] == 0 and data[24] in (2, 4):
        # Pillow stretches grey levels of 2 and 4 bits to 0..255; class ids must not be.
        return mask // np.uint8(255 // (2 ** data[24] - 1))
    return mask.astype(mask.dtype.newbyteorder("="), copy=False)


def _one_channel(mask: UInt8[np.ndarray, "h w c"], mode: str, name: str, may_be: bool) -> UInt8[np.ndarray, "h w"]:
    """The channel of a picture whose channels are alike, if it may be one; DataError if it is coloured."""
    coloured = (mask != mask[..., :1]).any(axis=-1)
    if coloured.any() or not may_be:
        row, column = np.unravel_index(coloured.argmax(), coloured.shape)
        raise DataError(
            "coloured",
            f"{name}: a mask needs one channel of class ids, this one is {_MODES.get(mode, mode)}, with colours like "
            f"{mask[row, column].tolist()}",
            "give classes.json the `colours` of the classes, or put CVAT's labelmap.txt in place of classes.txt",
        )
    return mask[..., 0]


def open_mask(data: bytes, name: str, max_megapixels: int = MAX_MEGAPIXELS) -> Image.Image:
    """A mask file as Pillow reads it, to the end.

    Raises:
      DataError: not a picture, cut short, or too large.
    """
    try:
        picture = Image.open(io.BytesIO(data))
        check_sides(picture.height, picture.width, name, max_megapixels)
        picture.load()
    except DataError:
        raise
    except Exception as error:  # whatever Pillow's plugins trip over: OSError, SyntaxError, struct.error, ...
        raise unreadable(data, name, "mask", error) from error
    return picture
