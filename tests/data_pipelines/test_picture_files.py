"""Pictures that are too large, and files that are something else than they seem: said before or instead of decoding."""

import io
import json
import struct
import zlib

import cv2
import numpy as np
import pytest
from PIL import Image

from data_pipelines import decode, files, sources
from data_pipelines.builders.encodings import read_indices
from data_pipelines.builders.records import Photo, Unreadable, example
from data_pipelines.decode import check_readable, decode_image, decode_mask
from data_pipelines.folder_classes import read_classes
from data_pipelines.picture_files import size_of
from larvseg_jax.errors import DataError
from larvseg_jax.vocabulary import Vocabulary


def chunk(kind, body):
    return struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body))


def one_bit_png(width, height):
    """A PNG of a few kilobytes that says, and holds, so many pixels of one bit."""
    deflate = zlib.compressobj(9)
    row, data = b"\0" * (1 + (width + 7) // 8), []
    for _ in range(height):
        data.append(deflate.compress(row))
    header = struct.pack(">IIBBBBB", width, height, 1, 0, 0, 0, 0)
    body = chunk(b"IDAT", b"".join([*data, deflate.flush()]))
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + body + chunk(b"IEND", b"")


def saved(form, size=(7, 5), mode="RGB", **options):
    file = io.BytesIO()
    Image.new(mode, size).save(file, form, **options)
    return file.getvalue()


def claims_much(kind):
    """A picture that says it has 400 megapixels."""
    if kind == "png":
        return one_bit_png(20_000, 20_000)
    if kind == "jpeg":
        data = saved("JPEG")
        at = data.index(b"\xff\xc0") + 5
        return data[:at] + struct.pack(">HH", 20_000, 20_000) + data[at + 4 :]
    if kind == "bmp":
        data = saved("BMP")
        return data[:18] + struct.pack("<ii", 20_000, 20_000) + data[26:]
    directory = bytearray(saved("TIFF"))
    for tag in (256, 257):  # width, height
        at = next(at for kind in (3, 4) if (at := directory.find(struct.pack("<HH", tag, kind))) >= 0)
        directory[at : at + 12] = struct.pack("<HHII", tag, 4, 1, 20_000)
    return bytes(directory)


SMALL = saved("PNG")
LARGE = {kind: claims_much(kind) for kind in ("png", "jpeg", "bmp", "tiff")}


@pytest.fixture
def no_decoding(monkeypatch):
    """Fails where anything is decoded."""

    def refuse(*_, **__):
        raise AssertionError("decoded")

    monkeypatch.setattr(decode.cv2, "imdecode", refuse)
    monkeypatch.setattr(decode.Image.Image, "load", refuse)


@pytest.mark.parametrize("kind", LARGE)
@pytest.mark.parametrize("read", [decode_image, check_readable, decode_mask])
def test_what_is_too_large_is_not_decoded(kind, read, no_decoding):
    with pytest.raises(DataError) as caught:
        read(LARGE[kind], "a/b.png")
    message = str(caught.value)
    assert message.startswith("a/b.png: 20000 x 20000 pixels (400.0 megapixels) are more than max_megapixels=178: ")
    assert message.endswith("or raise max_megapixels")


@pytest.mark.parametrize("chunk_type", [b"tEXt", b"IDAT"])
@pytest.mark.parametrize("read", [decode_image, check_readable])
def test_a_png_whose_chunk_claims_gigabytes_is_not_decoded(chunk_type, read, no_decoding):
    head, rest = SMALL[:33], SMALL[33:]
    text = chunk(b"tEXt", b"Title\0a") + rest
    at = text.index(chunk_type) - 4
    data = head + text[:at] + (1_500_000_000).to_bytes(4, "big") + text[at + 4 :]
    with pytest.raises(DataError, match="a PNG that is broken or cut short"):
        read(data, "x.png")


def test_a_limit_counts_for_masks_with_colours_and_for_preparations(tmp_path, no_decoding):
    colours = {"names": ["a", "b"], "colours": [[0, 0, 0], [1, 2, 3]]}
    (tmp_path / "classes.json").write_text(json.dumps(colours))
    table = read_classes(tmp_path).table
    with pytest.raises(DataError, match="20000 x 20000 pixels"):
        table.decode(LARGE["png"], "m.png")
    with pytest.raises(DataError, match=r"7 x 5 pixels .* max_megapixels=0"):
        table.decode(SMALL, "m.png", 0)
    with pytest.raises(Unreadable, match="20000 x 20000 pixels"):
        read_indices(LARGE["png"], "m.png")
    with pytest.raises(Unreadable, match="20000 x 20000 pixels"):
        example(Photo("p", LARGE["jpeg"], None, (0,)), 1)


def test_the_option_lowers_and_raises_the_limit():
    photo = one_bit_png(2_000, 1_000)
    assert decode_image(photo, "x", 2).shape == (1_000, 2_000, 3)
    assert decode_mask(photo, "x", 2).shape == (1_000, 2_000)
    for read in (decode_image, check_readable, decode_mask):
        with pytest.raises(DataError, match=r"2\.0 megapixels\) are more than max_megapixels=1:"):
            read(photo, "x", 1)


def test_no_option_goes_beyond_what_opencv_reads(no_decoding):
    with pytest.raises(DataError, match="are more than OpenCV reads: scale it down or cut it$"):
        decode_image(saved_head(40_000, 40_000), "x", 10_000)
    with pytest.raises(DataError, match="are more than OpenCV reads"):
        decode_image(saved_head(2**20 + 1, 1), "x")


def saved_head(width, height):
    header = struct.pack(">IIBBBBB", width, height, 1, 0, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", b"") + chunk(b"IEND", b"")


@pytest.mark.parametrize("source", ["folder", "class_folders"])
def test_the_limit_of_a_run_reaches_its_sources(tmp_path, source):
    for folder in ("images/train", "masks/train", "tagged/a"):
        (tmp_path / folder).mkdir(parents=True)
    (tmp_path / "classes.txt").write_text("a\nb\n")
    for file in ("images/train/p.png", "masks/train/p.png", "tagged/a/p.png"):
        (tmp_path / file).write_bytes(one_bit_png(2_000, 1_000))
    where = sources.SourceConfig(**{source: "." if source == "folder" else "tagged"})
    labels = Vocabulary(("a", "b"), ("a",), ("b",)).label_set()
    reads = "masks" if source == "folder" else "tags"
    assert sources.open_source(where, tmp_path, labels, reads)[0]["image"].shape == (1_000, 2_000, 3)
    with pytest.raises(DataError, match="max_megapixels=1"):
        sources.open_source(where, tmp_path, labels, reads, max_megapixels=1)[0]


@pytest.mark.parametrize("form", ["JPEG", "PNG", "WEBP", "TIFF", "BMP", "GIF", "PPM"])
def test_size_from_the_head_is_that_of_the_picture(form):
    assert size_of(saved(form, (31, 17))) == (17, 31)
    assert size_of(saved(form, (31, 17))[:20]) in (None, (17, 31))


@pytest.mark.parametrize("options", [dict(progressive=True), dict(comment=b"\xff\xc0\0\x0b\x08\x75\x30\x75\x30"), {}])
def test_size_of_jpegs_of_all_kinds(options):
    data = saved("JPEG", (31, 17), **options)
    assert size_of(data) == (17, 31)
    filled = data.replace(b"\xff\xdb", b"\xff\xff\xff\xdb", 1)  # filling before a marker is allowed
    assert decode_image(filled, "x").shape[:2] == size_of(filled) == (17, 31)
    assert size_of(data[:30]) is None


def float_tiff(dtype, channels=3):
    values = np.zeros((4, 5, channels), dtype)
    return cv2.imencode(".tiff", values)[1].tobytes()


def boxes(brand, *others):
    brands = brand + b"\0\0\0\0" + b"".join(others)
    return struct.pack(">I", 8 + len(brands)) + b"ftyp" + brands + b"\0" * 40


PAGE = b"<!DOCTYPE html>\n<html><head><title>404 Not Found</title></head></html>"
KINDS = {
    "heic": (boxes(b"heic", b"mif1", b"heic"), "a HEIC photo", "convert it to JPEG or PNG"),
    "heic of bursts": (boxes(b"msf1", b"hevc"), "a HEIC photo", "convert it"),
    "cut avif": (boxes(b"avif", b"mif1"), "an AVIF picture", "convert it"),
    "video": (boxes(b"isom", b"mp42"), "a video", "save its frames"),
    "lfs": (b"version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 9\n", "a Git LFS pointer", "git lfs pull"),
    "float tiff": (float_tiff(np.float32), "a TIFF of 3 channels of 32-bit floating-point values", "8 or 16 bits"),
    "double tiff": (float_tiff(np.float64, 1), "a TIFF of 1 channel of 64-bit floating-point values", "8 or 16 bits"),
    "pdf": (b"%PDF-1.7\n%\xe2\xe3\xcf\xd3\n1 0 obj", "a PDF document", "export its pages"),
    "web page": (PAGE, "a web page", "download it again"),
    "web page with a mark": (b"\xef\xbb\xbf\n <HTML lang=en>", "a web page", "download it again"),
    "xml": (b"<?xml version='1.0'?><Error><Code>AccessDenied</Code></Error>", "an XML text", "download it again"),
    "svg": (b"<?xml version='1.0'?><svg xmlns='x'/>", "an SVG drawing", "export it as PNG"),
    "text": (b"Not found", "a text that begins 'Not found'", "replace the file"),
    "archive": (b"PK\x03\x04\x14\0", "a ZIP archive", "unpack it"),
    "raw": (boxes(b"crx "), "a raw photo of a Canon camera", "convert it"),
    "psd": (b"8BPS\0\x01", "a Photoshop document", "export it"),
    "nothing": (b"", "the file is empty", "replace the file"),
    "zeros": (bytes(5000), "nothing but zeros", "replace the file"),
    "cut jpeg": (saved("JPEG", (64, 64))[:400], "a JPEG that is broken or cut short", "replace the file"),
    "cut png": (saved("PNG", (64, 64))[:50], "a PNG that is broken or cut short", "replace the file"),
    "noise": (bytes(range(128, 256)), "no format that is known", "replace the file"),
}


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("read", [decode_image, check_readable, decode_mask])
def test_a_file_that_cannot_be_read_is_called_what_it_is(kind, read):
    data, what, remedy = KINDS[kind]
    if read is decode_mask and kind == "cut jpeg":
        what, remedy = "is a JPEG, which changes the numbers of a mask", "export it anew"
    if read is decode_mask and "tiff" in kind:
        what, remedy = "", ""  # its own words, of which Pillow reads more
    with pytest.raises(DataError) as caught:
        read(data, "photos/7.jpg")
    message = str(caught.value)
    assert message.startswith("photos/7.jpg: ")
    assert what in message
    assert remedy.replace("JPEG or PNG", "PNG") in message.replace("JPEG or PNG", "PNG")
    assert " at 0x" not in message
    assert "\n" not in message


def test_a_mask_is_never_sent_to_jpeg():
    with pytest.raises(DataError, match="convert it to PNG$"):
        decode_mask(KINDS["heic"][0], "m.png")


@pytest.mark.parametrize("form", ["GIF", "PNG", "WEBP"])
def test_of_a_moving_picture_the_first_is_read(form):
    first, second = (Image.new("RGB", (8, 8), colour) for colour in ("red", "blue"))
    file = io.BytesIO()
    first.save(file, form, save_all=True, append_images=[second], duration=100)
    assert np.abs(decode_image(file.getvalue(), "x").astype(int) - (255, 0, 0)).max() < 8


@pytest.mark.parametrize("form", ["JPEG", "TIFF"])
def test_pictures_for_print_are_read(form):
    file = io.BytesIO()
    Image.new("RGB", (8, 8), (200, 30, 40)).convert("CMYK").save(file, form)
    assert np.abs(decode_image(file.getvalue(), "x").astype(int) - (200, 30, 40)).max() < 8


@pytest.mark.parametrize(
    ("error", "message"),
    [
        (PermissionError(13, "Permission denied"), r"x\.jpg: cannot be read \(Permission denied\): allow reading it"),
        (IsADirectoryError(21, "Is a directory"), r"x\.jpg: is a folder and no file: move its pictures out of it"),
    ],
)
def test_a_file_that_may_not_be_opened_is_named_with_what_to_do(monkeypatch, error, message):
    def refuse(*_):
        raise error

    monkeypatch.setattr(files, "open", refuse, raising=False)
    with pytest.raises(DataError, match=message):
        files.read_bytes("x.jpg")
