"""Writes a model's prediction for chosen classes and photos of one size to a file."""

from __future__ import annotations

import importlib.util
import json
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import NamedTuple

import jax

from larvseg_jax.console import console, in_bytes, stage
from larvseg_jax.disk import write_bytes, write_text
from larvseg_jax.errors import UserError
from larvseg_jax.portable.onnx import onnx
from larvseg_jax.portable.stablehlo import stablehlo
from larvseg_jax.trained import Trained


class _Kind(NamedTuple):
    """How a kind of file is made, the package that this takes, and how to get it."""

    content: Callable[[Trained, Sequence[str], tuple[int, int]], bytes]
    package: str
    remedy: str


_KINDS = {
    ".stablehlo": _Kind(stablehlo, "flatbuffers", "pip install -e .[portable]"),
    ".onnx": _Kind(onnx, "jax2onnx", "docs/exports.md says how to install it"),
}


def export_program(trained: Trained, to: Path, classes: Sequence[str], size: tuple[int, int]) -> None:
    """Writes `to`, and beside it a .json with the names of its classes.

    Args:
      trained: the model.
      to: the file; its ending says what kind it is.
      classes: names of those that compete.
      size: height and width of the photos it will take.

    Raises:
      UserError: as `program.photo_program`; the package is missing that writes this kind; a file cannot be written.
    """
    kind = _KINDS[to.suffix]
    if importlib.util.find_spec(kind.package) is None:
        raise UserError(f"{to} needs the package {kind.package}: {kind.remedy}")
    with stage("tracing"):
        data = kind.content(trained, classes, size)
    write_bytes(to, data)
    about = {
        "classes": list(classes),
        "takes": f"RGB, uint8 [{size[0]}, {size[1]}, 3]",
        "gives": f"index of the best class, int32 [{size[0]}, {size[1]}]",
        "model": str(trained.source),
        "step": trained.step,
        "jax": jax.__version__,
    }
    names = to.with_suffix(".json")
    write_text(names, json.dumps(about, indent=1, ensure_ascii=False))
    console.print(f"{to}: {len(classes)} classes, {size[0]} x {size[1]} pixels, {in_bytes(len(data))}; {names}")
