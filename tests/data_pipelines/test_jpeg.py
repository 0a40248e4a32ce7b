"""JPEG files by libjpeg-turbo itself, against OpenCV's pixels."""

import io
import random
import struct

import cv2
import numpy as np
import pytest
from PIL import Image

from data_pipelines.jpeg import upright_jpeg

ORIENTATION = 0x112


def jpeg(seed=0, height=37, width=51, mode="RGB", **options):
    levels = np.random.default_rng(seed).integers(0, 256, (6, 8, 3), dtype=np.uint8)
    image = cv2.resize(levels, (width, height), interpolation=cv2.INTER_CUBIC)
    file = io.BytesIO()
    Image.fromarray(image).convert(mode).save(file, "JPEG", **options)
    return file.getvalue()


def by_opencv(data):
    return cv2.imdecode(np.frombuffer(data, np.uint8), cv2.IMREAD_COLOR_RGB)


def turned(value, order="<", kind=3):
    """A JPEG whose EXIF data has one more tag before its orientation, in the byte order that is asked for."""
    start = (b"II*\0" if order == "<" else b"MM\0*") + struct.pack(order + "I", 8)
    entry = struct.pack(order + "HHIHH", ORIENTATION, kind, 1, value, 0)
    exif = start + struct.pack(order + "H", 2) + struct.pack(order + "HHII", 0x100, 4, 1, 51) + entry + bytes(4)
    body = b"Exif\0\0" + exif
    data = jpeg()
    return data[:2] + b"\xff\xe1" + struct.pack(">H", 2 + len(body)) + body + data[2:]


@pytest.mark.parametrize("size", [(1, 1), (8, 16), (17, 33), (37, 51)])
@pytest.mark.parametrize("subsampling", [0, 1, 2])
@pytest.mark.parametrize(
    "options", [{}, {"progressive": True}, {"quality": 30}, {"mode": "L"}, {"restart_marker_rows": 1}]
)
def test_pixels_are_opencvs(size, subsampling, options):
    data = jpeg(0, *size, subsampling=subsampling, **options)
    found = upright_jpeg(data)
    assert found.dtype == np.uint8
    np.testing.assert_array_equal(found, by_opencv(data))


@pytest.mark.parametrize("folder", ["voc12_animals", "imagenet_samples", "ccp", "coco_mini"])
def test_pixels_of_photographs_are_opencvs(shared, folder):
    files = sorted((shared / "realdata" / folder / "images").rglob("*.jp*g"))
    assert files
    for file in random.Random(0).sample(files, 10):
        data = file.read_bytes()
        np.testing.assert_array_equal(upright_jpeg(data), by_opencv(data))


@pytest.mark.parametrize("order", ["<", ">"])
def test_exif_of_an_upright_photo(order):
    data = turned(1, order)
    np.testing.assert_array_equal(upright_jpeg(data), by_opencv(data))


@pytest.mark.parametrize("order", ["<", ">"])
@pytest.mark.parametrize("value", [0, 2, 3, 6, 8, 9])
def test_what_exif_turns_is_left_to_opencv(value, order):
    assert upright_jpeg(turned(value, order)) is None


def test_exif_that_is_not_understood_is_left_to_opencv():
    upright = turned(1)
    assert upright_jpeg(turned(1, kind=4)) is None
    assert upright_jpeg(upright.replace(b"II*\0", b"II+\0")) is None
    # The list of tags lies behind the end, or claims more tags than there are bytes.
    assert upright_jpeg(upright.replace(b"II*\0\x08\0\0\0", b"II*\0\xff\0\0\0")) is None
    assert (
        upright_jpeg(turned(1).replace(struct.pack("<H", ORIENTATION), b"\0\1").replace(b"\2\0\0\1", b"\xff\0\0\1"))
        is None
    )


def test_exif_behind_other_segments_is_found():
    data = turned(6)
    end = 4 + int.from_bytes(data[4:6], "big")
    exif, rest = data[2:end], data[end:]
    thumbnail = b"\xff\xed\0\x08\xff\xda\0\2\0\0"  # a segment that looks as if the pixels began in it
    assert upright_jpeg(data[:2] + thumbnail + exif + rest) is None


@pytest.mark.parametrize("subsampling", [0, 2])
def test_pixels_of_cmyk_are_opencvs_or_left_to_it(subsampling):
    data = jpeg(mode="CMYK", subsampling=subsampling)
    found = upright_jpeg(data)
    assert (found is None) == (subsampling == 2)
    if found is not None:
        np.testing.assert_array_equal(found, by_opencv(data))


def test_other_files_are_left_to_opencv():
    assert upright_jpeg(b"") is None
    assert upright_jpeg(b"\xff\xd8") is None
    assert upright_jpeg(cv2.imencode(".png", np.zeros((4, 4, 3), np.uint8))[1].tobytes()) is None


def test_files_cut_short_are_left_to_opencv():
    data = jpeg()
    for end in range(len(data)):
        assert upright_jpeg(data[:end]) is None, end


def test_damaged_files_are_opencvs_or_left_to_it():
    rng = np.random.default_rng(0)
    taken = 0
    for seed in range(300):
        data = bytearray(jpeg(seed, 24, 24, progressive=bool(seed % 2)))
        data[rng.integers(2, len(data))] = rng.integers(256)
        found = upright_jpeg(bytes(data))
        if found is not None:
            taken += 1
            np.testing.assert_array_equal(found, by_opencv(bytes(data)))
    assert taken > 30
