"""Zip archives that hold weights (.npz, .pth): what is read from one is in proportion to its size on disk."""

from __future__ import annotations

import zipfile
from collections import Counter
from pathlib import Path

from larvseg_jax.console import in_bytes

_MOST_TIMES = 8  # weights hardly compress; zeros do so a thousandfold, and bombs are made of them
_SLACK = 2**24  # bytes: small files may hold a lot of zeros


def check_size(size: int, path: Path, what: str) -> None:
    """ValueError if so many bytes are more than weights in a file of that size can be."""
    on_disk = path.stat().st_size
    if size > _MOST_TIMES * on_disk + _SLACK:
        raise ValueError(f"{what} {in_bytes(size)}, in a file of {in_bytes(on_disk)}")


def check_members(archive: zipfile.ZipFile, path: Path) -> None:
    """Looks at the table of contents alone, before anything is unpacked.

    Raises:
      ValueError: a name that stands twice, members that unpack to far more than the file's size, or ones that are
        encrypted or packed in a way that no writer of weights uses (some unpack without any bound).
    """
    members = archive.infolist()
    twice = [name for name, count in Counter(member.filename for member in members).items() if count > 1]
    if twice:
        raise ValueError(f"it holds {twice[0]!r} twice")
    for member in members:
        if member.compress_type not in (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED) or member.flag_bits & 1:
            raise ValueError(f"{member.filename!r} is encrypted, or neither stored nor deflated")
    check_size(sum(member.file_size for member in members), path, "it declares")


def read_member(archive: zipfile.ZipFile, name: str) -> bytes:
    """A member, whose declared size is never exceeded; ValueError if it has less."""
    size = archive.getinfo(name).file_size
    with archive.open(name) as stream:
        # With a number, read() unpacks no more than that; without, whatever the packed bytes give.
        data = stream.read(size)
        if len(data) != size or stream.read(1):  # which also compares the checksum
            raise ValueError(f"{name!r} has not the {size} bytes that it declares")
    return data
