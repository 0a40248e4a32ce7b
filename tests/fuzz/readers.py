"""Every reader of files that users bring, with small valid inputs of each kind and what is done to them."""

from __future__ import annotations

import io
import json
import tarfile
from pathlib import Path
from random import Random
from typing import Any

import numpy as np
from PIL import Image

from configs import quickstart
from data_pipelines.builders.records import Unreadable
from data_pipelines.builders.synset_photos import photos_in_archive
from data_pipelines.class_listing import list_class_folders
from data_pipelines.decode import check_readable, decode_image, decode_mask
from data_pipelines.examples import LabelMap
from data_pipelines.folder_classes import ColourTable, read_classes
from data_pipelines.listing import list_folder
from data_pipelines.prepared import read_metadata
from larvseg_jax.config import from_config
from larvseg_jax.errors import UserError
from larvseg_jax.report.curves import draw_curves
from larvseg_jax.report.metric_log import FILE_NAME, read_history, typical_speed
from larvseg_jax.vocabulary import Vocabulary
from larvseg_jax.weights.record import Record
from tests import tiny
from tests.conftest import REPOSITORY
from tests.fuzz import mutations
from tests.fuzz.derived import captions_reader, features_reader, wordnet_reader
from tests.fuzz.pairs import lists_reader, shards_reader
from tests.fuzz.reader import Reader
from tests.fuzz.weights import (
    backbone_readers,
    clip_readers,
    learnt_reader,
    npz_reader,
    pth_reader,
    resnet_reader,
    safetensors_reader,
)

CLASSES = ("cat", "dog", "sky")
_CHECKPOINT = REPOSITORY / "tests/data/version_0_1.tar.xz"


def _old_record() -> dict[str, Any]:
    """That of a checkpoint of version 0.1."""
    with tarfile.open(_CHECKPOINT) as archive:
        stream = archive.extractfile("4/record/metadata")
        assert stream is not None
        return json.load(stream)


def _settings() -> Reader:
    settings = [config.to_dict() for config in (tiny.get_config(), quickstart.get_config())]
    seeds = [json.dumps(each).encode() for each in (*settings, _old_record()["settings"])]

    def read(content: bytes, _folder: Path) -> None:
        settings = mutations.parsed(content)
        from_config(settings if isinstance(settings, dict) else {"streams": settings})

    return Reader("settings", seeds, mutations.changed_json, read, 12)


def _records() -> Reader:
    new = {
        "settings": tiny.get_config().to_dict(),
        "classes": tiny.NAMES,
        "data": {"seed": 0},
        "versions": {"jax": "1"},
    }
    new |= {"arrays": {".params['head']['gamma']": "float32[]", ".memory.slots": "float32[16, 3, 16]"}}
    seeds = [json.dumps(record).encode() for record in (new, _old_record())]

    def read(content: bytes, _folder: Path) -> None:
        try:
            record = Record.from_json(json.loads(content))
        except Exception as error:  # as Checkpoints.record does: whatever it is, the checkpoint is damaged
            raise UserError(f"no record ({type(error).__name__})") from error
        from_config(record.settings)

    return Reader("records", seeds, mutations.changed_json, read, 8)


def _metrics() -> Reader:
    lines = [{"step": i, "kind": "train", "a/L_seg": 1.0, "images_per_second": 9.0, "mfu": None} for i in range(3)]
    lines += [{"step": 3, "kind": "eval", "name": "val", "mIoU": 0.5, "mIoU_novel": None}]
    seeds = ["".join(json.dumps(line) + "\n" for line in lines).encode()]
    drawn = 0

    def read(content: bytes, folder: Path) -> None:
        nonlocal drawn
        (folder / FILE_NAME).write_bytes(content)
        history = read_history(folder)
        typical_speed(history)
        drawn += 1
        if drawn % 300 == 1:  # half a second each
            draw_curves(history)

    return Reader("metrics", seeds, mutations.changed_lines(mutations.changed_json), read, 10)


def _classes() -> Reader:
    names = {"names": CLASSES, "ignore": 255}
    colours = {"names": CLASSES, "colours": [[0, 0, 0], [1, 2, 3], [9, 9, 9]], "ignore": [255, 255, 255]}
    seeds = [json.dumps(each).encode() for each in (names, colours)]
    label_set = Vocabulary(CLASSES, (), ()).label_set()

    def mutate(rng: Random, data: bytes) -> bytes:
        if rng.random() < 0.2:
            return b"T" + mutations.changed_bytes(rng, "cat\ndog\né\n".encode())
        return mutations.changed_json(rng, data)

    def read(content: bytes, folder: Path) -> None:
        (folder / "classes.json").unlink(missing_ok=True)
        text = content.startswith(b"T")
        (folder / ("classes.txt" if text else "classes.json")).write_bytes(content[text:])
        classes = read_classes(folder)
        LabelMap.build(classes.names, classes.ignore, label_set, str(classes.file))

    return Reader("classes", seeds, mutate, read, 7)


def _splits(folder: Path) -> Reader:
    data = folder / "data"
    for part, ending in (("images", ".jpg"), ("masks", ".png")):
        (data / part).mkdir(parents=True)
        for stem in ("a", "b"):
            (data / part / f"{stem}{ending}").touch()
    (data / "classes.txt").write_text("\n".join(CLASSES))
    labels = {"train": ["a", "b"], "few": {"train": ["a"]}, "image_labels": {"a": [0, 1], "b": []}}

    def read(content: bytes, _folder: Path) -> None:
        (data / "splits.json").write_bytes(content)
        for split in ("train", "few.train"):
            listing = list_folder(data, split, masks=True, tags=True)
            for fault in listing.faults:
                str(fault.error())

    return Reader("splits", [json.dumps(labels).encode()], mutations.changed_json, read, 5)


def _folders() -> Reader:
    """Names of class folders and of the pictures in them: one byte is a folder's, the others a file's."""

    def read(content: bytes, folder: Path) -> None:
        for name in content.split(b"/")[:5]:
            name = name.replace(b"\x00", b"")[:100]
            inner = bytes(folder / "folders").rstrip(b"/") + b"/" + (name[:1] if name[:1] != b"." else b"c")
            Path(inner.decode("utf-8", "surrogateescape")).mkdir(parents=True, exist_ok=True)
            Path((inner + b"/x" + name).decode("utf-8", "surrogateescape")).touch()
        listing = list_class_folders(folder / "folders")
        for fault in listing.faults:
            str(fault.error())
        for i in range(min(len(listing), 3)):
            listing.read(i)

    return Reader("folders", [b"cat.jpg/dog.png/c\xc3\xa9.jpg"], mutations.changed_bytes, read, 1)


def _pictures() -> list[Reader]:
    rng = np.random.default_rng(0)
    pixels = rng.integers(0, 3, (9, 11), dtype=np.uint8)

    def saved(picture: Image.Image, kind: str, **options: Any) -> bytes:
        stream = io.BytesIO()
        picture.save(stream, kind, **options)
        return stream.getvalue()

    colour = Image.fromarray(rng.integers(0, 256, (9, 11, 3), dtype=np.uint8))
    photos = [saved(colour, kind) for kind in ("PNG", "JPEG", "WEBP", "BMP", "TIFF")]
    exif = Image.Exif()
    exif[0x0112] = 6
    photos.append(saved(colour, "JPEG", exif=exif))
    palette = Image.fromarray(pixels).convert("P")
    masks = [
        saved(mask, "PNG") for mask in (Image.fromarray(pixels), palette, Image.fromarray(pixels.astype(np.uint16)))
    ]
    masks += [saved(palette, "PNG", bits=2), saved(Image.fromarray(pixels > 1), "PNG"), saved(palette, "TIFF")]
    table = ColourTable.build(CLASSES, [[0, 0, 0], [1, 1, 1], [2, 2, 2]], None, Path("classes.json"))

    def read_photo(content: bytes, _folder: Path) -> None:
        check_readable(content, "x.png")
        decode_image(content, "x.png")

    def read_mask(content: bytes, _folder: Path) -> None:
        decode_mask(content, "x.png")

    def read_colours(content: bytes, _folder: Path) -> None:
        table.decode(content, "x.png")

    return [
        Reader("photos", photos, mutations.changed_png, read_photo, 6),
        Reader("masks", masks, mutations.changed_png, read_mask, 6),
        Reader("coloured masks", masks[:2], mutations.changed_png, read_colours, 2),
    ]


def _metadata() -> Reader:
    known = {"class_list": "ade20k_150", "layout": "x", "release": "y", "expected": {"train": 3}}
    known |= {"unreadable": {"train": [{"file": "a", "reason": "b"}]}, "photos_per_class": {"train": [1, 2]}}

    def read(content: bytes, folder: Path) -> None:
        (folder / "metadata.json").write_bytes(content)
        read_metadata(folder)

    return Reader("metadata", [json.dumps(known).encode()], mutations.changed_json, read, 1)


def _archives() -> Reader:
    stream = io.BytesIO()
    with tarfile.open(fileobj=stream, mode="w") as archive:
        for name in ("a.jpg", "b.JPEG", "long" * 40 + ".jpg"):
            member = tarfile.TarInfo(name)
            member.size = 600
            archive.addfile(member, io.BytesIO(bytes(600)))

    def read(content: bytes, folder: Path) -> None:
        path = folder / "n00004475.tar"
        path.write_bytes(content)
        found = list(photos_in_archive(path, 0, None))
        if any(isinstance(photo, Unreadable) for photo in found):
            raise UserError("some of it is unreadable, and listed")

    return Reader("archives", [stream.getvalue()], mutations.changed_tar, read, 2)


def readers(folder: Path) -> list[Reader]:
    """All of them; `folder` holds what they need between two inputs."""
    return [
        *(
            npz_reader(),
            pth_reader(folder),
            safetensors_reader(),
            learnt_reader(folder),
            _settings(),
            _records(),
            _metrics(),
        ),
        *(_classes(), _splits(folder), _folders(), *_pictures(), _metadata(), _archives()),
        *(
            *backbone_readers(folder),
            *clip_readers(folder),
            resnet_reader(folder),
            features_reader(folder),
            captions_reader(folder),
        ),
        *(wordnet_reader(), lists_reader(folder), shards_reader()),
    ]
