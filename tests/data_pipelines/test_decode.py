"""Decoding of photos and masks, against Pillow and the numbers that were written."""

import io
import struct
import zlib

import cv2
import numpy as np
import pytest
from PIL import Image

from data_pipelines.decode import decode_image, decode_mask
from larvseg_jax.errors import UserError


def picture(seed=0, height=30, width=44):
    levels = np.random.default_rng(seed).integers(0, 256, (6, 8, 3), dtype=np.uint8)
    return cv2.resize(levels, (width, height), interpolation=cv2.INTER_CUBIC)


def encoded(image, file_format, mode=None, **options):
    file = io.BytesIO()
    made = Image.fromarray(image)
    (made if mode is None else made.convert(mode)).save(file, file_format, **options)
    return file.getvalue()


def raw_png(ids, bits):
    """A grey PNG of 1, 2 or 4 bits, written by hand: Pillow cannot write all of them."""
    height, width = ids.shape
    rows = []
    for row in ids:
        text = "".join(f"{v:0{bits}b}" for v in row)
        text += "0" * (-len(text) % 8)
        rows.append(b"\0" + bytes(int(text[i : i + 8], 2) for i in range(0, len(text), 8)))

    def chunk(kind, body):
        return struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body))

    header = struct.pack(">IIBBBBB", width, height, bits, 0, 0, 0, 0)
    data = zlib.compress(b"".join(rows))
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", data) + chunk(b"IEND", b"")


@pytest.mark.parametrize(
    ("mode", "file_format"),
    [("RGB", "PNG"), ("RGB", "JPEG"), ("L", "JPEG"), ("L", "PNG"), ("LA", "PNG"), ("P", "PNG"), ("1", "PNG")],
)
def test_image_modes_equal_pillows_rgb(mode, file_format):
    data = encoded(picture(), file_format, mode)
    image = decode_image(data, "x")
    assert image.dtype == np.uint8
    np.testing.assert_array_equal(image, np.asarray(Image.open(io.BytesIO(data)).convert("RGB")))


def test_image_transparency_is_dropped_not_blended():
    rgba = np.dstack([picture(), picture(1)[..., 0]])
    np.testing.assert_array_equal(decode_image(encoded(rgba, "PNG"), "x"), rgba[..., :3])


def test_image_cmyk_jpeg_is_about_the_same_picture():
    image = decode_image(encoded(picture(), "JPEG", "CMYK", quality=98, subsampling=0), "x")
    assert np.abs(image.astype(int) - picture()).mean() < 4


@pytest.mark.parametrize("extension", [".png", ".tiff"])
@pytest.mark.parametrize("grey", [False, True])
def test_image_of_16_bits_is_cut_to_8(extension, grey):
    wanted = picture()[..., :1].repeat(3, axis=2) if grey else picture()
    deep = wanted.astype(np.uint16) * 257
    _, data = cv2.imencode(extension, deep[..., 0] if grey else deep[..., ::-1])
    np.testing.assert_array_equal(decode_image(data.tobytes(), "x"), wanted)


@pytest.mark.parametrize("extension", [".png", ".tiff"])
@pytest.mark.parametrize("grey", [False, True])
@pytest.mark.parametrize("bits", [8, 9, 10, 11, 12, 13, 14, 15, 16])
def test_image_of_fewer_bits_in_16_is_not_dark(extension, grey, bits):
    levels = picture()[..., :1].repeat(3, axis=2) if grey else picture()
    deep = (levels.astype(np.uint32) * (2**bits - 1) // levels.max()).astype(np.uint16)  # its largest is 2**bits - 1
    _, data = cv2.imencode(extension, deep[..., 0] if grey else deep[..., ::-1])
    cut = {8: 0, 9: 2, 10: 2, 11: 4, 12: 4, 13: 6, 14: 6, 15: 8, 16: 8}[bits]
    image = decode_image(data.tobytes(), "x")
    np.testing.assert_array_equal(image, deep >> cut)
    assert image.max() >= 127


def test_image_of_16_bits_made_of_dark_8_is_not_brightened():
    wanted = picture() // 8
    _, data = cv2.imencode(".png", wanted[..., ::-1].astype(np.uint16) * 257)
    np.testing.assert_array_equal(decode_image(data.tobytes(), "x"), wanted)


def test_image_of_16_bits_is_turned_as_exif_says():
    tags = Image.Exif()
    tags[0x112] = 6
    deep = picture()[..., 0].astype(np.uint16) * 16
    image = decode_image(encoded(deep, "PNG", exif=tags), "x")
    bits = 12 if deep.max() < 2**12 else 14
    np.testing.assert_array_equal(image[..., 0], np.rot90(deep >> (bits - 8), -1))


@pytest.mark.parametrize("size", [40, 300])
def test_image_of_16_bits_cut_short_is_named(size):
    deep = np.random.default_rng(0).integers(0, 2**12, (40, 40, 3)).astype(np.uint16)
    _, data = cv2.imencode(".png", deep)
    with pytest.raises(UserError, match=r"a\.png: no readable picture"):
        decode_image(data.tobytes()[:size], "a.png")


@pytest.mark.parametrize(
    ("orientation", "turned"),
    [(1, lambda a: a), (3, lambda a: a[::-1, ::-1]), (6, lambda a: np.rot90(a, -1)), (8, np.rot90)],
)
def test_image_is_turned_as_exif_says(orientation, turned):
    tags = Image.Exif()
    tags[0x112] = orientation
    plain = decode_image(encoded(picture(), "JPEG"), "x")
    np.testing.assert_array_equal(decode_image(encoded(picture(), "JPEG", exif=tags), "x"), turned(plain))


def broken(kind):
    data = encoded(picture(height=200, width=200), "JPEG" if kind == "jpeg" else "PNG")
    return {"empty": b"", "garbage": b"not a picture", "flipped": data[:900] + b"\0\0" + data[902:]}.get(
        kind, data[: len(data) * 2 // 3]
    )


@pytest.mark.parametrize(
    ("decode", "kind"),
    [(decode, kind) for decode in (decode_image, decode_mask) for kind in ("empty", "garbage", "png", "flipped")]
    + [(decode_image, "jpeg")],  # a mask must not be a JPEG at all
)
def test_broken_files_are_named(decode, kind):
    with pytest.raises(UserError, match=r"photos/7\.jpg: no readable .*take it out of the split") as caught:
        decode(broken(kind), "photos/7.jpg")
    assert "\n" not in str(caught.value)


def test_mask_palette_gives_indices():
    ids = np.random.default_rng(0).integers(0, 21, (9, 13), dtype=np.uint8)
    ids[0, 0] = 255
    made = Image.fromarray(ids)
    made.putpalette(np.random.default_rng(1).integers(0, 256, 768, dtype=np.uint8).tobytes())
    file = io.BytesIO()
    made.save(file, "PNG")
    assert Image.open(file).mode == "P"
    np.testing.assert_array_equal(decode_mask(file.getvalue(), "x"), ids)


@pytest.mark.parametrize("bits", [1, 2, 4, 8])
def test_mask_of_few_bits_keeps_the_numbers(bits):
    ids = np.random.default_rng(bits).integers(0, 2**bits, (5, 11))
    mask = decode_mask(raw_png(ids, bits), "x")
    assert mask.dtype == np.uint8
    np.testing.assert_array_equal(mask, ids)


@pytest.mark.parametrize("file_format", ["PNG", "TIFF"])
def test_mask_of_16_bits_is_exact(file_format):
    ids = np.random.default_rng(0).integers(0, 2**16, (5, 11)).astype(np.uint16)
    mask = decode_mask(encoded(ids, file_format), "x")
    assert mask.dtype == np.uint16
    np.testing.assert_array_equal(mask, ids)


def test_mask_of_32_bits_becomes_16_if_it_fits():
    ids = np.array([[0, 65535], [7, 300]], np.int32)
    mask = decode_mask(encoded(ids, "TIFF"), "x")
    assert mask.dtype == np.uint16
    np.testing.assert_array_equal(mask, ids)
    np.testing.assert_array_equal(decode_mask(encoded(ids - 1, "TIFF"), "x"), ids - 1)


def test_mask_with_colours_is_refused():
    with pytest.raises(
        UserError, match=r"m\.png: a mask needs one channel of class ids, this one is RGB.*classes\.json"
    ):
        decode_mask(encoded(picture(), "PNG"), "m.png")


@pytest.mark.parametrize("mode", ["RGB", "RGBA", "LA"])
def test_mask_of_grey_in_colour_is_read_where_it_is_allowed(mode):
    ids = np.random.default_rng(0).integers(0, 256, (5, 11), dtype=np.uint8)
    data = encoded(ids, "PNG", mode)
    np.testing.assert_array_equal(decode_mask(data, "m.png", grey_in_colour=True), ids)
    with pytest.raises(UserError, match=rf"m\.png: a mask needs one channel of class ids, this one is .*{mode}"):
        decode_mask(data, "m.png")
