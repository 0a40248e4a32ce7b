"""Captions of photos as a list: captions.json, captions.csv or captions.tsv in a data folder.

captions.json: {"a.jpg": ["A dog on a beach", "a dog runs"]}

captions.csv: a header, then a line a caption; a photo may have several.

  file,caption
  a.jpg,"A dog on a beach, running"
  a.jpg,a dog runs

captions.tsv: as Conceptual Captions publishes them, a line a photo without a header: its address, a tab, its caption.
The files are then named by the number of the line, from 0 on, with any number of zeros before it, or by the MD5, SHA-1
or SHA-256 of the address in hexadecimal digits.

Files are given as seen from the folder of the pictures; their endings may be left out.
"""

from __future__ import annotations

import hashlib
import unicodedata
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path

from data_pipelines.faults import Fault
from data_pipelines.files import FILE_COLUMNS, csv_rows, listed_path, read_json, read_text
from larvseg_jax.errors import UserError

CAPTION_LISTS = ("captions.json", "captions.csv", "captions.tsv")
"""Names of such lists; the first that is there counts."""

_CAPTION_COLUMNS = ("caption", "captions", "text", "comment")
_DIGESTS = {32: hashlib.md5, 40: hashlib.sha1, 64: hashlib.sha256}  # by the length of the name


def caption_list_of(folder: Path) -> Path | None:
    """The list in a folder; None if there is none."""
    return next((folder / name for name in CAPTION_LISTS if (folder / name).is_file()), None)


def read_caption_list(file: Path, pictures: Iterable[str]) -> dict[str, tuple[str, ...]]:
    """Photo -> its captions as they stand there, in the order of the list; of a .tsv the photos that are there.

    Args:
      file: the list.
      pictures: paths of the pictures, which tell how those of a .tsv are named.

    Raises:
      UserError: the file cannot be read as such a list.
    """
    if file.suffix == ".tsv":
        return _of_tsv(file, pictures)
    found: dict[str, tuple[str, ...]] = {}
    for photo, captions in _of_json(file) if file.suffix == ".json" else _of_csv(file):
        name = unicodedata.normalize("NFC", listed_path(photo))
        found[name] = (*found.get(name, ()), *captions)
    return found


def usable(captions: Sequence[str]) -> tuple[str, ...]:
    """The captions that say something, without blanks around them."""
    return tuple(stripped for caption in captions if (stripped := caption.strip()))


def caption_faults(captions: Sequence[str], name: str) -> list[Fault]:
    """What is wrong with the captions of the photo `name`."""
    left = usable(captions)
    if not left:
        return [Fault("no caption", f"{name}: no caption")]
    faults = [Fault("empty caption", f"{name}: {len(captions) - len(left)} empty")] if len(left) < len(captions) else []
    twice = next((caption for i, caption in enumerate(left) if caption in left[:i]), None)
    return faults + ([Fault("same caption", f"{name}: {twice[:80]!r} twice")] if twice is not None else [])


def _of_json(file: Path) -> Iterator[tuple[str, Sequence[str]]]:
    for photo, captions in read_json(file).items():
        if not isinstance(captions, list) or not all(isinstance(caption, str) for caption in captions):
            shown = repr(captions)[:80]
            raise UserError(f"{file}: {photo!r} has {shown}: write {{file name of a photo: [captions]}}")
        yield photo, captions


def _of_csv(file: Path) -> Iterator[tuple[str, Sequence[str]]]:
    header, *rows = csv_rows(file, "|,\t;") or [[""]]
    names = [name.strip().lower() for name in header]
    photos = [i for i, name in enumerate(names) if name in FILE_COLUMNS]
    captions = [i for i, name in enumerate(names) if name in _CAPTION_COLUMNS]
    if not photos or not captions:
        first = ",".join(header)[:80]
        raise UserError(f"{file}: begins with {first!r}: its first line must name the columns, file,caption")
    for row in rows:
        if len(row) != len(header):
            first = ",".join(row)[:80]
            raise UserError(
                f"{file}: the line {first!r} has {len(row)} cells for {len(header)} columns: write captions "
                'with commas in quotation marks, "..."'
            )
        yield row[photos[0]], [row[captions[0]]]


def _of_tsv(file: Path, pictures: Iterable[str]) -> dict[str, tuple[str, ...]]:
    """Of every line the name that its picture has here, as far as there is one."""
    by_stem = {Path(picture).stem: picture for picture in pictures}
    lengths = {len(stem) for stem in by_stem if len(stem) in _DIGESTS and not set(stem) - set("0123456789abcdef")}
    numbers = {int(stem): stem for stem in by_stem if stem.isdecimal() and stem.isascii() and len(stem) not in lengths}
    found: dict[str, tuple[str, ...]] = {}
    for number, line in enumerate(read_text(file).removesuffix("\n").split("\n")):
        address, tab, caption = line.removesuffix("\r").partition("\t")
        if not tab:
            raise UserError(f"{file}: line {number + 1}, {line[:80]!r}, has no tab: write address, tab, caption")
        digests = (_DIGESTS[length](address.encode(), usedforsecurity=False).hexdigest() for length in lengths)
        stem = numbers.get(number) or next((digest for digest in digests if digest in by_stem), None)
        name = by_stem[stem] if stem is not None else address
        found[name] = (*found.get(name, ()), caption)
    return found
