"""What a picture file is, from its first bytes: how large it is, and what to say where it cannot be read."""

from __future__ import annotations

import io
import re
import struct

from PIL import Image, UnidentifiedImageError
from PIL.TiffImagePlugin import ImageFileDirectory_v2

from larvseg_jax.errors import DataError

# A limit of its own stands below, which also covers what OpenCV decodes. Pillow's would warn from half of it on.
Image.MAX_IMAGE_PIXELS = None

MAX_MEGAPIXELS = 178
"""The largest picture that is decoded unless an option says otherwise, in millions of pixels: what Pillow refuses."""

REPLACE = "replace the file or take it out of the split"
"""What to do about a broken file of a data set."""

_OPENCV_PIXELS, _OPENCV_SIDE = 2**30, 2**20  # that it reads
_PNG, _JPEG, _TIFF = b"\x89PNG\r\n\x1a\n", b"\xff\xd8\xff", (b"II*\0", b"MM\0*", b"II+\0", b"MM\0+")

_CONVERT = "convert it to JPEG or PNG"
_DOWNLOAD = "download it again"

_BEGINNINGS: tuple[tuple[bytes, str, str], ...] = (
    (b"version https://git-lfs", "a Git LFS pointer in place of the picture", "fetch the pictures with: git lfs pull"),
    (b"\x00\x05\x16\x07", "a file of macOS with notes about another file", "delete it"),
    (b"%PDF", "a PDF document", "export its pages as JPEG or PNG"),
    (b"%!PS", "a PostScript document", "export its pages as JPEG or PNG"),
    (b"\xff\x0a", "a JPEG XL picture", _CONVERT),
    (b"\0\0\0\x0cJXL ", "a JPEG XL picture", _CONVERT),
    (b"8BPS", "a Photoshop document", "export it as JPEG or PNG"),
    (b"gimp xcf", "a GIMP document", "export it as JPEG or PNG"),
    (b"v/1\x01", "an OpenEXR picture", _CONVERT),
    (b"#?RADIANCE", "a Radiance HDR picture", _CONVERT),
    (b"FUJIFILMCCD-RAW", "a raw photo of a Fujifilm camera", _CONVERT),
    (b"IIRO", "a raw photo of an Olympus camera", _CONVERT),
    (b"IIU\0", "a raw photo of a Panasonic camera", _CONVERT),
    (b"\x93NUMPY", "a NumPy array", "save it as PNG"),
    (b"\x89HDF", "an HDF5 file", "save its pictures as PNG"),
    (b"SIMPLE  =", "a FITS file", "save its pictures as PNG"),
    (b"PK\x03\x04", "a ZIP archive or an Office document", "unpack it"),
    (b"\x1f\x8b", "a gzip archive", "unpack it"),
    (b"7z\xbc\xaf\x27\x1c", "a 7z archive", "unpack it"),
    (b"Rar!", "a RAR archive", "unpack it"),
    (b"\x1aE\xdf\xa3", "a video", "save its frames as JPEG or PNG"),
    (_JPEG, "a JPEG that is broken or cut short", REPLACE),
    (_PNG, "a PNG that is broken or cut short", REPLACE),
    (b"GIF8", "a GIF that is broken or cut short, or of a kind that is not read", _CONVERT),
    (b"BM", "a BMP that is broken or cut short, or of a kind that is not read", _CONVERT),
)
_BRANDS = (  # of a file of boxes (ISO/IEC 14496-12), in the order in which they decide
    ((b"heic", b"heix", b"heim", b"heis", b"hevc", b"hevx"), "a HEIC photo, as iPhones take them", _CONVERT),
    ((b"avif", b"avis"), "an AVIF picture", _CONVERT),
    ((b"mif1", b"msf1"), "a HEIF picture", _CONVERT),
    ((b"crx ",), "a raw photo of a Canon camera", _CONVERT),
)
_FLOAT, _INTEGER = 3, 2  # TIFF's SampleFormat


def check_size(data: bytes, name: str, max_megapixels: int) -> None:
    """Refuses a picture that is too large, before a pixel of it is decoded.

    Args:
      data: the bytes of the file.
      name: file name for the error message.
      max_megapixels: the most that is allowed, millions of pixels.

    Raises:
      DataError: it is larger, or its size cannot be told.
    """
    size = size_of(data)
    if size is None or (data.startswith(_PNG) and _claims_more(data)):
        raise unreadable(data, name)
    check_sides(*size, name, max_megapixels)


def check_sides(height: int, width: int, name: str, max_megapixels: int) -> None:
    """As `check_size`, of a picture whose size is known."""
    opencv = height * width > _OPENCV_PIXELS or max(height, width) > _OPENCV_SIDE
    if opencv or height * width > max_megapixels * 1_000_000:
        pixels = f"{name}: {width} x {height} pixels ({height * width / 1e6:,.1f} megapixels)"
        limit = "are more than OpenCV reads" if opencv else f"are more than max_megapixels={max_megapixels}"
        remedy = "scale it down or cut it" if opencv else "scale it down or cut it, or raise max_megapixels"
        raise DataError("unreadable", f"{pixels} {limit}", remedy)


def size_of(data: bytes) -> tuple[int, int] | None:
    """Height and width as the head of a file says them, before any turning; None where it does not.

    The heads of JPEG and PNG are read here, at a tenth of what Pillow takes, for a training asks for every photo.
    """
    if data.startswith(_PNG):
        return _pair(">II", data, 16) if data[12:16] == b"IHDR" else None
    if data.startswith(_JPEG):
        return _jpeg_size(data)
    try:
        with Image.open(io.BytesIO(data)) as picture:
            return picture.height, picture.width
    except Exception:  # whatever Pillow's plugins trip over
        tags = _tiff_tags(data)
        sides = tags.get(257), tags.get(256)
        return sides if all(isinstance(side, int) for side in sides) else None  # type: ignore[return-value]


def unreadable(data: bytes, name: str, thing: str = "picture", error: Exception | None = None) -> DataError:
    """What to raise where a file cannot be read: it says what the file is, and what to do.

    Args:
      data: the bytes of the file.
      name: file name for the error message.
      thing: what it should have been.
      error: what a library said.
    """
    what, remedy = _description(data)
    # Pillow's "cannot identify image file" holds nothing but the address of an object.
    if thing == "mask":
        # JPEG would smear the class ids.
        remedy = remedy.replace("JPEG or PNG", "PNG").replace("grey or RGB picture", "grey PNG")
    said = "" if error is None or isinstance(error, UnidentifiedImageError) else f" ({' '.join(str(error).split())})"
    return DataError("unreadable", f"{name}: no readable {thing} in these {len(data)} bytes: {what}{said}", remedy)


def _description(data: bytes) -> tuple[str, str]:
    """What a file is that cannot be read, and what to do about it."""
    if not data.strip(b"\0"):
        return ("nothing but zeros" if data else "the file is empty"), REPLACE
    for beginning, what, remedy in _BEGINNINGS:
        if data.startswith(beginning):
            return what, remedy
    if data[4:8] == b"ftyp":
        return _boxes(data)
    if data.startswith(_TIFF):
        return _tiff(data)
    if data.startswith(b"RIFF"):
        webp = data[8:12] == b"WEBP"
        return ("a WebP that is broken or cut short", REPLACE) if webp else ("a video or a sound", "remove it")
    if data[128:132] == b"DICM":
        return "a DICOM file", "save its pictures as PNG"
    return _text(data) or ("no format that is known", REPLACE)


def _boxes(data: bytes) -> tuple[str, str]:
    brands = {data[8:12], *(data[i : i + 4] for i in range(16, min(int.from_bytes(data[:4], "big"), 256), 4))}
    for known, what, remedy in _BRANDS:
        if brands & set(known):
            return what, remedy
    return "a video", "save its frames as JPEG or PNG"


def _tiff(data: bytes) -> tuple[str, str]:
    """A TIFF: of what values, if these are the reason."""
    tags = _tiff_tags(data)
    bits, channels = tags.get(258, 1), tags.get(277, 1)
    bits = bits[0] if isinstance(bits, tuple) else bits
    kinds = tags.get(339, 1)
    kinds = kinds[0] if isinstance(kinds, tuple) else kinds
    kind = "floating-point" if kinds == _FLOAT else "signed" if kinds == _INTEGER else ""
    if kind or channels not in (1, 3, 4) or bits not in (1, 8, 16):
        what = f"a TIFF of {channels} channel{'s' * (channels != 1)} of {bits}-bit {kind} values".replace("  ", " ")
        return what, "save it as a grey or RGB picture of 8 or 16 bits"
    return "a TIFF that is broken or cut short, or of a kind that is not read", _CONVERT


def _text(data: bytes) -> tuple[str, str] | None:
    """A text, such as what a server sends in place of a picture; None for anything else."""
    try:
        start = data[:1024].decode("utf-8-sig", "strict" if len(data) <= 1024 else "ignore").lstrip()
    except UnicodeDecodeError:
        return None
    if not start or any(not c.isprintable() and not c.isspace() for c in start):
        return None
    if re.search(r"<svg\b", start, re.IGNORECASE):
        return "an SVG drawing", "export it as PNG"
    if re.match(r"<(!doctype\s+html|html|head|body)\b", start, re.IGNORECASE):
        return "a web page (HTML), such as an error page in place of the picture", _DOWNLOAD
    if start.startswith("<?xml"):
        return "an XML text, such as an error message in place of the picture", _DOWNLOAD
    shown = " ".join(start.split())[:40]
    return f"a text that begins {shown!r}", REPLACE


def _claims_more(data: bytes) -> bool:
    """Whether a chunk of a PNG says that it is longer than the file: OpenCV takes that much memory before it looks."""
    at = len(_PNG)
    while at + 8 <= len(data) and data[at + 4 : at + 8] != b"IEND":
        at += 12 + int.from_bytes(data[at : at + 4], "big")
    return at > len(data)


def _jpeg_size(data: bytes) -> tuple[int, int] | None:
    """From the first frame header, which is looked for as libjpeg does."""
    at = 2
    while (at := data.find(b"\xff", at)) >= 0 and at + 9 <= len(data):
        marker = data[at + 1]
        if marker == 0xFF:  # filling
            at += 1
        elif 0xC0 <= marker <= 0xCF and marker not in (0xC4, 0xC8, 0xCC):
            return _pair(">HH", data, at + 5)
        elif marker <= 1 or 0xD0 <= marker <= 0xD8:  # stand alone
            at += 2
        else:
            at += 2 + int.from_bytes(data[at + 2 : at + 4], "big")
    return None


def _pair(form: str, data: bytes, at: int) -> tuple[int, int] | None:
    """(height, width) from two numbers in the file; PNG has the width first."""
    try:
        first, second = struct.unpack_from(form, data, at)
    except struct.error:
        return None
    return (second, first) if form == ">II" else (first, second)


def _tiff_tags(data: bytes) -> dict[int, object]:
    """The tags of the first picture of a TIFF, also of kinds that Pillow has no mode for; {} for other files."""
    if not data.startswith(_TIFF):
        return {}
    try:
        file = io.BytesIO(data)
        directory = ImageFileDirectory_v2(file.read(16 if data[2:3] == b"+" or data[3:4] == b"+" else 8))
        file.seek(directory.next)
        directory.load(file)
        return dict(directory)
    except Exception:  # a broken file, whatever Pillow trips over
        return {}
