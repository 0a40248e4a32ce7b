"""What is stored of one photo, and which pictures and masks are refused."""

import io

import cv2
import numpy as np
import pytest
from PIL import Image

from data_pipelines.builders.records import Photo, Unreadable, check_readable, example
from data_pipelines.decode import decode_image
from larvseg_jax.errors import UserError

CLASSES = 847


def jpeg(pixels, **options):
    file = io.BytesIO()
    Image.fromarray(pixels).save(file, "JPEG", **options)
    return file.getvalue()


PHOTO = jpeg(np.zeros((10, 20, 3), np.uint8))


def test_masks_belong_to_the_turned_photo():
    exif = Image.Exif()
    exif[0x0112] = 6  # a quarter turn
    data = jpeg(np.zeros((10, 20, 3), np.uint8), exif=exif)
    record = example(Photo("p", data, np.full((20, 10), 300, np.uint16)), CLASSES)
    assert record["image"] == data
    assert record["tags"] == [300]
    with pytest.raises(UserError, match="mask has 20x10 pixels, the picture 10x20"):
        example(Photo("p", data, np.zeros((10, 20), np.uint16)), CLASSES)


def test_tags():
    assert example(Photo("p", PHOTO, None, (846, 300, 300)), CLASSES)["tags"] == [300, 846]
    assert example(Photo("p", PHOTO, np.full((10, 20), 65535, np.uint16)), CLASSES)["tags"] == []
    for tag in (-1, CLASSES):
        with pytest.raises(UserError, match=f"photo p: image label {tag} is not among the classes 0..846"):
            example(Photo("p", PHOTO, None, (tag,)), CLASSES)


@pytest.mark.parametrize("size", [(1, 1), (7, 5), (61, 83)])
@pytest.mark.parametrize("kind", ["JPEG", "progressive", "CMYK", "L", "PNG", "GIF", "BMP", "WEBP"])
def test_the_quick_check_agrees_with_reading(kind, size):
    pixels = Image.fromarray(np.random.default_rng(0).integers(0, 256, (*size, 3), dtype=np.uint8))
    file = io.BytesIO()
    if kind in ("CMYK", "L"):
        pixels = pixels.convert(kind)
    options = {"progressive": True} if kind == "progressive" else {}
    pixels.save(file, kind if kind in ("PNG", "GIF", "BMP", "WEBP") else "JPEG", **options)
    data = file.getvalue()
    assert decode_image(data, "it").shape == (*size, 3)
    for length in {len(data), *range(len(data) - 4, len(data)), len(data) - 20, len(data) // 2, 30, 1, 0}:
        try:
            decode_image(data[:length], "it")
            readable = True
        except UserError:
            readable = False
        if readable:
            check_readable(data[:length], "it")
        else:
            with pytest.raises(Unreadable):
                check_readable(data[:length], "it")


def test_the_quick_check_does_not_read_in_full(monkeypatch):
    flags = []
    decode = cv2.imdecode
    monkeypatch.setattr(cv2, "imdecode", lambda data, flag: flags.append(flag) or decode(data, flag))
    check_readable(jpeg(np.zeros((50, 60, 3), np.uint8)), "it")
    assert flags == [cv2.IMREAD_REDUCED_COLOR_8]
