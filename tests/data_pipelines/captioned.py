"""Small data sets of photos with captions: a folder, and shards."""

import io
import json
import tarfile
from pathlib import Path

import numpy as np
from PIL import Image

CAPTIONS = {
    "a.jpg": ["A dog on a beach", "a dog runs"],
    "b.png": ["a red ball"],
    "c.jpg": ["grass", " ", "grass"],
    "zoo/d.jpg": ["sheep, and a tree"],
}


def picture(i=0, ending=".png"):
    """Bytes of a small picture."""
    pixels = np.random.default_rng(i).integers(0, 256, (12 + i, 16, 3), dtype=np.uint8)
    buffer = io.BytesIO()
    Image.fromarray(pixels).save(buffer, "jpeg" if ending == ".jpg" else "png")
    return buffer.getvalue()


def write_folder(folder: Path, captions=CAPTIONS, file="captions.json", splits=None) -> Path:
    """images/ and a list of captions; `splits` as splits.json."""
    for i, name in enumerate(captions):
        path = folder / "images" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(picture(i, path.suffix))
    if file.endswith(".json"):
        (folder / file).write_text(json.dumps(captions))
    else:
        lines = [f'{name},"{text}"' for name, texts in captions.items() for text in texts]
        (folder / file).write_text("\n".join(["file,caption", *lines]) + "\n")
    if splits is not None:
        (folder / "splits.json").write_text(json.dumps(splits))
    return folder


def write_tar(path: Path, members: dict[str, bytes]) -> Path:
    """A .tar of such files, in their order."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with tarfile.open(path, "w") as archive:
        for name, content in members.items():
            member = tarfile.TarInfo(name)
            member.size = len(content)
            archive.addfile(member, io.BytesIO(content))
    return path
