"""Photos that their EXIF tag turns, and the masks that belong to them as they are stored or as they are shown."""

from __future__ import annotations

import io
from collections.abc import Callable, Mapping

import numpy as np
from jaxtyping import Integer
from PIL import Image

_ORIENTATION = 0x0112  # the EXIF tag
_TURNS: Mapping[int, Callable[[np.ndarray], np.ndarray]] = {  # those that swap the sides
    5: lambda mask: mask.T,
    6: lambda mask: np.rot90(mask, -1),
    7: lambda mask: np.rot90(mask, 2).T,
    8: lambda mask: np.rot90(mask),
}


def orientation(photo: bytes) -> int:
    """The EXIF orientation of a picture file, 1 to 8; 1 (as stored) where it has none or is broken."""
    try:
        with Image.open(io.BytesIO(photo)) as picture:
            return int(picture.getexif().get(_ORIENTATION, 1))
    except Exception:  # a broken photo, which is reported when it is decoded
        return 1


def turned_mask(
    mask: Integer[np.ndarray, "h w"], size: tuple[int, ...], photo: bytes
) -> Integer[np.ndarray, "turned_h turned_w"]:
    """The mask turned with its photo, which readers turn as its EXIF tag says, if it fits the photo as stored only.

    `Original:` turns the photo alone. Flips and half turns do not change the size: such a mask stays as it is.

    Args:
      mask: of the photo.
      size: height and width of the photo as it is shown.
      photo: bytes of its file.
    """
    if mask.shape == size or mask.shape != size[::-1]:
        return mask
    turn = _TURNS.get(orientation(photo))
    return mask if turn is None else np.ascontiguousarray(turn(mask))


def exif_remark(size_of_mask: tuple[int, ...], size: tuple[int, ...], photo: bytes) -> str:
    """What becomes of the mask of a photo with an EXIF turn, where it could have been meant otherwise; else ""."""
    turn = orientation(photo)
    if turn == 1 or (size_of_mask != size and (turn not in _TURNS or size_of_mask != size[::-1])):
        return ""
    if size_of_mask != size:
        return f"EXIF orientation {turn}: the mask has the size of the photo as stored and is turned with it"
    if turn in _TURNS and size[0] != size[1]:
        return ""  # the mask has the size of the photo as shown
    return f"EXIF orientation {turn}: the mask is taken to show the photo turned, its size does not tell"
