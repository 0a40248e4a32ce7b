"""Vectors of class names by a text tower, in a file: the class matrix of methods that classify by name."""

from __future__ import annotations

import dataclasses
import io
import zipfile
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from jaxtyping import Float32

from larvseg_jax.errors import UserError
from larvseg_jax.options import CountOrNone

_REMEDY = "make the file anew with all names (larvseg text_vectors)"


@dataclasses.dataclass(frozen=True)
class TextClasses:
    """A section of options: the vectors that stand for the classes."""

    vectors: str = ""  # .npz file with `names` (n,) and `vectors` (n, width), as larvseg text_vectors writes it
    width: CountOrNone = 0  # numbers of a vector, 512 for CLIP ViT-B; 0: no text vectors, classes are learnt

    def __post_init__(self) -> None:
        if bool(self.vectors) != bool(self.width):
            raise UserError(f"vectors={self.vectors!r} and width={self.width}: give the file and its width, or neither")

    def read(self, names: Sequence[str]) -> Float32[np.ndarray, "n width"]:
        """The unit vectors of classes, in their order; UserError if the file lacks one or is of another width."""
        found = read_text_vectors(Path(self.vectors), names)
        if found.shape[1] != self.width:
            raise UserError(f"{self.vectors}: vectors of {found.shape[1]} numbers, and width={self.width}: set that")
        return found


def read_text_vectors(file: Path, names: Sequence[str]) -> Float32[np.ndarray, "n d"]:
    """The unit vectors of some names, in their order; case, - and _ make no difference where a name is not there as is.

    Raises:
      UserError: no such file, it is none of text vectors, or it lacks a name.
    """
    stored, vectors = _read(file)
    exact = {name: i for i, name in enumerate(stored)}
    plain = {_plain(name): i for i, name in reversed(list(enumerate(stored)))}
    places = [exact.get(name, plain.get(_plain(name), -1)) for name in names]
    missing = [name for name, place in zip(names, places, strict=True) if place < 0]
    if missing:
        shown = ", ".join(map(repr, missing[:3])) + (f" and {len(missing) - 3} more" if len(missing) > 3 else "")
        raise UserError(f"{file} has no vector of {shown}: {_REMEDY}")
    found = vectors[places]
    return found / np.linalg.norm(found, axis=1, keepdims=True)


def write_text_vectors(
    file: Path, names: Sequence[str], vectors: Float32[np.ndarray, "n d"], **about: str | Sequence[str]
) -> None:
    """Writes a file that `read_text_vectors` reads; `about`: what else it is to say, such as the templates."""
    with file.open("wb") as out:
        np.savez(
            out,
            allow_pickle=False,
            names=np.array(names),
            vectors=vectors,
            **{name: np.array(text) for name, text in about.items()},
        )


def _read(file: Path) -> tuple[list[str], Float32[np.ndarray, "n d"]]:
    try:
        with np.load(io.BytesIO(file.read_bytes()), allow_pickle=False) as arrays:
            names, vectors = arrays["names"], arrays["vectors"].astype(np.float32)
    except FileNotFoundError:
        raise UserError(f"{file} does not exist: name a file of text vectors (larvseg text_vectors)") from None
    except (OSError, ValueError, KeyError, TypeError, AttributeError, EOFError, zipfile.BadZipFile) as error:
        raise UserError(f"{file} is no file of text vectors ({type(error).__name__}): {_REMEDY}") from None
    if names.ndim != 1 or vectors.ndim != 2 or len(names) != len(vectors) or names.dtype.kind != "U":
        raise UserError(f"{file}: names {names.shape} and vectors {vectors.shape} do not belong together: {_REMEDY}")
    bad = ~np.isfinite(vectors).all(1) | ~vectors.any(1)
    if bad.any():
        raise UserError(f"{file}: the vector of {str(names[bad.argmax()])!r} is zero or not finite: {_REMEDY}")
    return [str(name) for name in names], vectors


def _plain(name: str) -> str:
    return name.casefold().replace("-", " ").replace("_", " ")
