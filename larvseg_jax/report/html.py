"""Pages that are one file, without a network: templates, and pictures as data URLs."""

from __future__ import annotations

import base64
import io
import math
from pathlib import Path

import jinja2
import numpy as np
from jaxtyping import UInt8
from PIL import Image


def templates(folder: Path) -> jinja2.Environment:
    """The templates of a folder: everything escaped, and a name that is not given an error.

    Filters: `percent` (0.123 -> "12.3", NaN -> a dash) and `hex` ((255, 0, 16) -> "#ff0010").
    """
    environment = jinja2.Environment(
        loader=jinja2.FileSystemLoader(folder),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters["percent"] = lambda value: "–" if math.isnan(value) else f"{100 * value:.1f}"
    environment.filters["hex"] = lambda rgb: "#{:02x}{:02x}{:02x}".format(*rgb)
    return environment


def jpeg_url(pixels: UInt8[np.ndarray, "h w 3"]) -> str:
    """An RGB photo as JPEG with full colour resolution: in PNG it would be ten times larger."""
    buffer = io.BytesIO()
    Image.fromarray(pixels).save(buffer, format="JPEG", quality=88, subsampling=0)
    return data_url("jpeg", buffer.getvalue())


def png_url(pixels: UInt8[np.ndarray, "h w 3"]) -> str:
    """An RGB picture as PNG, which keeps every colour exactly: masks."""
    buffer = io.BytesIO()
    Image.fromarray(pixels).save(buffer, format="PNG")
    return data_url("png", buffer.getvalue())


def data_url(kind: str, data: bytes) -> str:
    """An encoded picture ("png", "jpeg") as the URL of an <img>."""
    return f"data:image/{kind};base64,{base64.b64encode(data).decode()}"
