"""Archives of a synset's photos whose headers claim what is not there: said, and never allocated."""

import io
import tarfile

import pytest

from data_pipelines.builders.records import Photo, Unreadable
from data_pipelines.builders.synset_photos import photos_in_archive

TERABYTE = 2**40


def header(name, kind=tarfile.REGTYPE, size=TERABYTE, **values):
    member = tarfile.TarInfo(name)
    member.size, member.type = size, kind
    block = bytearray(member.tobuf(tarfile.GNU_FORMAT))
    for place, content in values.values():
        block[place : place + len(content)] = content
    block[148:156] = b"%06o\0 " % (256 + sum(block[:148]) + sum(block[156:]))  # its checksum
    return bytes(block)


# One piece of 512 bytes at the start of a file of a terabyte (offset, bytes of the piece, and at 483 the file's size).
SPARSE = {"piece": (386, b"00000000000\x0000000001000\x00"), "real": (483, b"\x80" + TERABYTE.to_bytes(11, "big"))}
ARCHIVES = {
    "photo": (header("b.jpg"), "b.jpg"),
    "long name": (header("b.jpg", tarfile.GNUTYPE_LONGNAME), "photos may be missing"),
    "extended header": (header("b.jpg", tarfile.XHDTYPE), "photos may be missing"),
    "sparse": (header("b.jpg", tarfile.GNUTYPE_SPARSE, 512, **SPARSE) + bytes(512), "claims 1,099,511,627,776 bytes"),
    "beyond all numbers": (header("b.jpg", tarfile.XHDTYPE, size=2**80), "photos may be missing"),
    "negative": (header("b.jpg", size=-512), "b.jpg"),
}


@pytest.mark.parametrize(("content", "message"), ARCHIVES.values(), ids=ARCHIVES)
def test_what_an_archive_claims_is_not_believed(tmp_path, content, message):
    stream = io.BytesIO()
    with tarfile.open(fileobj=stream, mode="w") as archive:
        member = tarfile.TarInfo("a.jpg")
        member.size = 3
        archive.addfile(member, io.BytesIO(b"abc"))
    path = tmp_path / "n00004475.tar"
    path.write_bytes(stream.getvalue()[:1024] + content + bytes(1024))
    photos, unreadable = [], []
    for found in photos_in_archive(path, 0, None):
        (unreadable if isinstance(found, Unreadable) else photos).append(found)
    assert [photo.image for photo in photos if isinstance(photo, Photo)] == [b"abc"]
    assert message in " ".join(map(str, unreadable))
