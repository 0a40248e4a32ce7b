"""JPEG files by libjpeg-turbo itself: the pixels that OpenCV makes of them, sooner."""

from __future__ import annotations

import struct

import numpy as np
import simplejpeg
from jaxtyping import UInt8

_START, _EXIF, _ORIENTATION = b"\xff\xd8", b"Exif\0\0", 0x0112
_SCAN, _APP1, _SHORT = 0xDA, 0xE1, 3
_ALONE = range(0xD0, 0xDA)  # markers without a length, which have no place in the head of a file


def upright_jpeg(data: bytes) -> UInt8[np.ndarray, "h w 3"] | None:
    """The RGB pixels of a whole JPEG that is shown as it is stored, level for level as OpenCV decodes it.

    None for everything else, which OpenCV is asked about: other formats, photos that an EXIF tag turns, and files in
    which anything is wrong.
    """
    if not data.startswith(_START) or not _is_upright(data):
        return None
    try:
        return simplejpeg.decode_jpeg(data, strict=True)
    except ValueError:
        return None


def _is_upright(data: bytes) -> bool:
    """Whether a JPEG's head says for sure that nothing turns the photo."""
    at = len(_START)
    while data[at : at + 1] == b"\xff" and at + 4 <= len(data):
        marker, length = data[at + 1], int.from_bytes(data[at + 2 : at + 4], "big")
        if marker == _SCAN:
            return True
        if marker < 0xC0 or marker in _ALONE or marker == 0xFF:
            return False
        exif = marker == _APP1 and data.startswith(_EXIF, at + 4)
        if exif and not _leaves_upright(data[at + 4 + len(_EXIF) : at + 2 + length]):
            return False
        at += 2 + length
    return False


def _leaves_upright(exif: bytes) -> bool:
    """Whether EXIF data is whole as far as it matters, and has no orientation but 1."""
    order = {b"II*\0": "<", b"MM\0*": ">"}.get(exif[:4])
    if order is None:
        return False
    try:
        (first,) = struct.unpack_from(order + "I", exif, 4)
        (count,) = struct.unpack_from(order + "H", exif, first)
        for at in range(first + 2, first + 2 + 12 * count, 12):
            tag, kind, _, value = struct.unpack_from(order + "HHIH", exif, at)
            if tag == _ORIENTATION:
                return kind == _SHORT and value == 1
    except struct.error:
        return False
    return True
