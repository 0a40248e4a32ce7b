"""Bytes of mask files, for tests."""

import io

from PIL import Image


def png(pixels):
    """A PNG of these pixels."""
    file = io.BytesIO()
    Image.fromarray(pixels).save(file, "PNG")
    return file.getvalue()
