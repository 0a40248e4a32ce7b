"""The files in a .tar, listed as far as it is whole."""

from __future__ import annotations

import tarfile
from pathlib import PurePosixPath

from data_pipelines.files import is_by_others

BROKEN = (tarfile.TarError, OSError, ValueError, MemoryError, OverflowError)
"""What damaged archives raise; MemoryError, without a word, and OverflowError come of headers that claim too much."""

_TOO_LARGE = "a header claims more than there is"


def file_members(archive: tarfile.TarFile) -> tuple[list[tarfile.TarInfo], str]:
    """The files of an archive but for those of other programs, and what is wrong with it, "" if nothing is."""
    members: list[tarfile.TarInfo] = []
    try:
        for member in archive:
            if archive.offset <= member.offset:  # or it would be found again and again
                return members, f"{member.name} claims {member.size:,} bytes"
            if member.isfile() and not any(map(is_by_others, PurePosixPath(member.name).parts)):
                members.append(member)
    except BROKEN as error:
        return members, reason(error)
    # tarfile takes a broken header for the end of the archive, which a block of zeros marks.
    assert archive.fileobj is not None
    archive.fileobj.seek(archive.offset)
    return members, "" if archive.fileobj.read(512) == bytes(512) else "no end of archive"


def reason(error: BaseException) -> str:
    """What an archive's error says."""
    return str(error) or _TOO_LARGE
