"""Readers of photos with captions: lists in a folder, and .tar shards."""

from __future__ import annotations

import io
import json
import tarfile
from pathlib import Path
from random import Random

from data_pipelines.caption_shards import list_shards
from data_pipelines.captioned_photos import Captioned, CaptionSource, list_captioned
from tests.fuzz import mutations
from tests.fuzz.reader import Reader

_LISTS = {
    "json": json.dumps({"a.jpg": ["A dog", "two\nmen"], "zoo/b.png": ["sheep"]}).encode(),
    "csv": b'file,caption\na.jpg,"A dog, ""running"""\nzoo/b,two men\n',
    "tsv": b"http://a/0.jpg\ta dog\nhttp://a/1.jpg\ttwo men\n",
}


def _look(photos: Captioned) -> None:
    """What a training and the doctor do, but for pictures."""
    for fault in photos.faults:
        str(fault.error())
    source = CaptionSource(photos)
    for i in range(min(len(source), 3)):
        photos.read(i)


def lists_reader(folder: Path) -> Reader:
    """Each of the three lists; its ending stands before it."""
    for name in ("a.jpg", "zoo/b.png", "0.jpg", "001.png"):
        path = folder / "pairs" / "images" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.touch()

    def mutate(rng: Random, data: bytes) -> bytes:
        ending, _, content = data.partition(b":")
        change = mutations.changed_json if ending == b"json" and rng.random() < 0.7 else mutations.changed_bytes
        return ending + b":" + change(rng, content)

    def read(content: bytes, own: Path) -> None:
        ending, _, text = content.partition(b":")
        data = own / "pairs"
        data.mkdir(exist_ok=True)
        if not (data / "images").exists():
            (data / "images").symlink_to(folder / "pairs" / "images")
        for file in data.glob("captions.*"):
            file.unlink()
        name = ending.decode("utf-8", "replace") if ending.decode("utf-8", "replace") in _LISTS else "csv"
        (data / f"captions.{name}").write_bytes(text)
        _look(list_captioned(data, "train"))

    return Reader("lists", [f"{e}:".encode() + text for e, text in _LISTS.items()], mutate, read, 2)


def shards_reader() -> Reader:
    """A shard of three pairs."""
    stream = io.BytesIO()
    members = {"0.jpg": bytes(600), "0.txt": b"a dog", "1.png": bytes(9), "1.json": b'{"caption": ["x", "y"]}'}
    members |= {"long" * 40 + ".webp": b"x", "long" * 40 + ".txt": "größer".encode()}
    with tarfile.open(fileobj=stream, mode="w") as archive:
        for name, content in members.items():
            member = tarfile.TarInfo(name)
            member.size = len(content)
            archive.addfile(member, io.BytesIO(content))

    def read(content: bytes, own: Path) -> None:
        (own / "web").mkdir(exist_ok=True)
        (own / "web" / "0.tar").write_bytes(content)
        _look(list_shards(own / "web", "train"))

    return Reader("shards", [stream.getvalue()], mutations.changed_tar, read, 2)
