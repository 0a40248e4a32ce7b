"""The scores of photos in pieces on the disk, so that a stopped command goes on.

<folder>/about.json        what the scores depend on
<folder>/part_00000.npz    ids (p,), scores (p, c) float32, truth (p, c) bool, open (p,) bool of 256 photos
"""

from __future__ import annotations

import dataclasses
import io
import json
import zipfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Bool, Float32, Shaped

from data_pipelines.files import read_json
from larvseg_jax.console import first_few
from larvseg_jax.disk import write_bytes, write_text
from larvseg_jax.errors import UserError
from larvseg_jax.options import changes

PHOTOS = 256
"""Of a piece."""


@dataclasses.dataclass(frozen=True)
class Scores:
    """What is known of photos.

    Attributes:
      ids: of the photos.
      scores: of the classes (Eq. 10).
      truth: which of them their masks show.
      open: whether they have pixels without a mask; the others are not looked at, their scores are 0.
    """

    ids: Shaped[np.ndarray, " p"]
    scores: Float32[np.ndarray, "p c"]
    truth: Bool[np.ndarray, "p c"]
    open: Bool[np.ndarray, " p"]


class Pieces:
    """The pieces of a folder; UserError if it holds those of something else."""

    def __init__(self, folder: Path, about: Mapping[str, Any], photos: int) -> None:
        self._folder, self._photos = folder, photos
        file, about = folder / "about.json", json.loads(json.dumps({**about, "photos": photos}))
        if not file.exists():
            write_text(file, json.dumps(about, indent=1))
        elif differences := changes(read_json(file), about):
            raise UserError(
                f"{folder} holds scores of something else ({first_few(differences, 4, '; ')}): give another --out, or "
                "delete it"
            )

    @property
    def missing(self) -> dict[Path, range]:
        """Files that are not there yet, and the numbers of their photos."""
        return {path: numbers for path, numbers in self._all.items() if not path.is_file()}

    @property
    def _all(self) -> dict[Path, range]:
        starts = range(0, self._photos, PHOTOS)
        return {
            self._folder / f"part_{i:05d}.npz": range(start, min(start + PHOTOS, self._photos))
            for i, start in enumerate(starts)
        }

    @staticmethod
    def write(path: Path, scores: Scores) -> None:
        """Writes one piece, whole or not at all."""
        buffer = io.BytesIO()
        np.savez(buffer, allow_pickle=False, **vars(scores))
        write_bytes(path, buffer.getvalue())

    def read(self) -> Scores:
        """All photos; UserError if a piece is damaged."""
        found = [_read(path, len(numbers)) for path, numbers in self._all.items()]
        return Scores(**{name: np.concatenate([part[name] for part in found]) for name in found[0]})


def _read(path: Path, photos: int) -> dict[str, np.ndarray]:
    try:
        with np.load(io.BytesIO(path.read_bytes()), allow_pickle=False) as file:
            found = {field.name: file[field.name] for field in dataclasses.fields(Scores)}
        if {len(x) for x in found.values()} != {photos}:
            raise ValueError("another number of photos")
    except (OSError, ValueError, KeyError, EOFError, zipfile.BadZipFile) as error:
        raise UserError(f"{path} is damaged ({error}): delete it, and the same command makes it anew") from error
    return found
