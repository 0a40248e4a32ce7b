"""Photos with captions in .tar files, as web data sets come (WebDataset, img2dataset), read where they lie.

<folder>/00000.tar, 00001.tar, ...               of the split "train"; or <folder>/<split>/00000.tar, ...
  KEY.jpg|jpeg|png|webp|...                      a picture
  KEY.txt                                        its caption; or KEY.json with "caption": a text, or several
<folder>/00000_stats.json                        of img2dataset: "count" pictures were looked for, "successes" are there

KEY is the path of a member up to the first dot of its name. A shard is one Python list of numbers in memory, not its
pictures or captions, which are read as they are needed.
"""

from __future__ import annotations

import bisect
import itertools
import json
import os
import tarfile
from collections.abc import Sequence
from concurrent import futures
from pathlib import Path
from typing import Any, NamedTuple, SupportsIndex

import numpy as np
from jaxtyping import Int64

from data_pipelines.examples import RawPhoto
from data_pipelines.faults import Fault
from data_pipelines.files import PICTURES, read_json
from data_pipelines.tar_members import BROKEN, file_members, reason
from larvseg_jax.console import track
from larvseg_jax.errors import DataError, UserError

_CAPTIONS = (".txt", ".json")  # the first that is there counts


class Shard(NamedTuple):
    """The pairs of one .tar.

    Attributes:
      path: the file.
      keys: of the pairs, in bytes: 10,000 strings would take ten times as much.
      places: where in the file the picture and the caption of each begin, and how many bytes they have.
      texts: whether its caption is a text, and not JSON.
      endings: number in PICTURES of its picture's ending.
      faults: what is wrong with it.
    """

    path: Path
    keys: np.ndarray
    places: Int64[np.ndarray, "pairs 4"]
    texts: np.ndarray
    endings: np.ndarray
    faults: tuple[Fault, ...]


class ShardListing:
    """The photos of all shards of a split, in the order of their names.

    Attributes:
      shards: of the split.
      faults: all that is wrong, as far as names and sizes tell.
    """

    def __init__(self, shards: Sequence[Shard], faults: Sequence[Fault]) -> None:
        self.shards, self.faults = tuple(shards), tuple(faults)
        self._ends = list(itertools.accumulate(len(shard.keys) for shard in shards))

    def __len__(self) -> int:
        return self._ends[-1]

    def read(self, index: SupportsIndex) -> RawPhoto:
        """Reads one photo and its captions; DataError if they cannot be. Safe to call from several threads."""
        place = range(len(self))[index]
        number = bisect.bisect_right(self._ends, place)
        shard = self.shards[number]
        row = place - (self._ends[number - 1] if number else 0)
        key = shard.keys[row].decode()
        image_at, image_size, caption_at, caption_size = shard.places[row].tolist()
        name = f"{shard.path}/{key}{PICTURES[shard.endings[row]]}"
        try:
            with open(shard.path, "rb") as stream:
                stream.seek(image_at)
                image = stream.read(image_size)
                stream.seek(caption_at)
                caption = stream.read(caption_size)
        except OSError as error:
            raise DataError("unreadable", f"{name}: cannot be read ({error.strerror})", "check the folder") from error
        return RawPhoto(key, name, image, captions=_captions(caption, bool(shard.texts[row]), name))


def list_shards(folder: Path, split: str) -> ShardListing:
    """Looks through the shards of a split: names, places and sizes of what is in them, no content.

    Args:
      folder: holds the shards, or a folder of shards for each split.
      split: the name of such a folder; "train" where the shards lie in `folder` itself.

    Raises:
      DataError: there is no such folder, or no .tar in it.
      UserError: there is no such split.
    """
    if not folder.is_dir():
        raise DataError("files", f"{folder} does not exist", "make it, with .tar files, or correct it")
    here = folder if any(folder.glob("*.tar")) else folder / split
    if here == folder and split != "train":
        raise UserError(f"{folder}, split {split!r}: its shards are no split: leave `split` at 'train'")
    files = sorted(here.glob("*.tar"))
    if not files:
        raise DataError("files", f"{here} holds no .tar", f"put the shards into it, or into {folder}")
    with futures.ThreadPoolExecutor(min(8, os.cpu_count() or 1)) as pool:
        shards = list(track(pool.map(look_through, files), len(files), f"{here.name}: shards"))
    faults = [fault for shard in shards for fault in shard.faults]
    if not any(len(shard.keys) for shard in shards):
        what = f"{here}: none of its {len(files)} .tar files has a picture with a caption"
        faults.append(Fault("files", what, "their members must be KEY.jpg and KEY.txt or KEY.json"))
    return ShardListing(shards, [*faults, *_not_downloaded(here, shards)])


def look_through(path: Path) -> Shard:
    """The pairs of one .tar; what is wrong stands in its faults."""
    pictures: dict[str, tuple[int, tarfile.TarInfo]] = {}
    captions: dict[str, tuple[str, tarfile.TarInfo]] = {}
    faults = []
    try:
        with tarfile.open(path, "r:") as archive:
            members, broken = file_members(archive)
    except BROKEN as error:  # no archive at all
        members, broken = [], reason(error)
    if broken:
        remedy = "download it again, or take it away"
        faults.append(Fault("unreadable", f"{path}: {broken}: pictures may be missing", remedy))
    size = path.stat().st_size
    for member in (member for member in members if member.offset_data + member.size <= size):
        key, ending = _key(member.name)
        if ending in PICTURES:
            pictures[key] = (PICTURES.index(ending), member)
        elif ending in _CAPTIONS and (key not in captions or ending == _CAPTIONS[0]):
            captions[key] = (ending, member)
    keys = [key for key in pictures if key in captions and captions[key][1].size]
    without = [key for key in pictures if key not in captions or not captions[key][1].size]
    among = f"({len(without)} of {len(pictures)} pictures)"
    faults += [Fault("no caption", f"{path}: {key!r} has no caption", "", among) for key in without]
    places = [
        (m.offset_data, m.size, c.offset_data, c.size) for m, c in ((pictures[k][1], captions[k][1]) for k in keys)
    ]
    return Shard(
        path,
        np.array([key.encode() for key in keys], np.bytes_),
        np.array(places, np.int64).reshape(-1, 4),
        np.array([captions[key][0] == _CAPTIONS[0] for key in keys], bool),
        np.array([pictures[key][0] for key in keys], np.uint8),
        tuple(faults),
    )


def _key(name: str) -> tuple[str, str]:
    """What the files of a pair have in common, and the ending, in lower case."""
    folder, slash, file = name.removeprefix("./").rpartition("/")
    stem, dot, ending = file.partition(".")
    return f"{folder}{slash}{stem}", f"{dot}{ending}".lower()


def _captions(content: bytes, is_text: bool, name: str) -> tuple[str, ...]:
    """The captions in a .txt or .json."""
    try:
        if is_text:
            return (" ".join(content.decode("utf-8-sig").split()),)
        found: Any = json.loads(content)
        captions = found.get("caption") if isinstance(found, dict) else None
    except (ValueError, RecursionError) as error:
        what = f"{name}: its caption cannot be read ({error})"
        raise DataError("unreadable", what, "write UTF-8, or take the pair out") from error
    if captions is None or isinstance(captions, str):
        return (captions or "",)
    if isinstance(captions, list) and all(isinstance(caption, str) for caption in captions):
        return tuple(captions)
    what = f"{name}: the caption in its .json is {str(captions)[:80]!r}"
    raise DataError("unreadable", what, "write a text, or a list of texts")


def _not_downloaded(folder: Path, shards: Sequence[Shard]) -> list[Fault]:
    """How many of the pictures img2dataset looked for are there, by what it writes beside its shards."""
    wanted, there, missing = 0, 0, list[str]()
    for shard in shards:
        file = shard.path.with_name(f"{shard.path.stem}_stats.json")
        if not file.is_file():
            continue
        count = read_json(file).get("count")
        if not isinstance(count, int):
            raise UserError(f"{file}: its count is {count!r}: it must be a number, or remove the file")
        wanted, there = wanted + count, there + len(shard.keys)
        if len(missing) < 3:
            missing += _missing_keys(shard, count)
    if wanted <= there:
        return []
    named = f": {', '.join(missing[:3])}{', ...' if wanted - there > 3 else ''}" if missing else ""
    what = f"{folder}: {there:,} of {wanted:,} pictures are there with a caption, {wanted - there:,} are not{named}"
    return [Fault("not downloaded", what)]


def _missing_keys(shard: Shard, count: int) -> list[str]:
    """The keys that img2dataset would have given: the shard's number, then the line's in as many digits as it takes."""
    keys = {key.decode() for key in shard.keys}
    width = max(map(len, keys), default=0)
    stem = shard.path.stem
    if not stem.isdecimal() or width <= len(stem):
        return []
    return [key for i in range(count) if (key := f"{stem}{i:0{width - len(stem)}}") not in keys]
