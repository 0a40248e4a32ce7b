"""Writes a model's prediction for chosen classes and photos of one size to a file."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path

import jax

from larvseg_jax.console import console, in_bytes, stage
from larvseg_jax.disk import write_bytes, write_text
from larvseg_jax.portable.kinds import ONNX, STABLEHLO, check_kind
from larvseg_jax.portable.onnx import onnx
from larvseg_jax.portable.stablehlo import stablehlo
from larvseg_jax.trained import Trained

_CONTENT = {STABLEHLO: stablehlo, ONNX: onnx}


def export_program(trained: Trained, to: Path, classes: Sequence[str], size: tuple[int, int]) -> None:
    """Writes `to`, and beside it `to`.json with the names of its classes.

    Args:
      trained: the model.
      to: the file; its ending says what kind it is.
      classes: names of those that compete.
      size: height and width of the photos it will take.

    Raises:
      UserError: as `program.photo_program` and `kinds.check_kind`; a file cannot be written.
    """
    check_kind(to)
    with stage("tracing"):
        data = _CONTENT[to.suffix](trained, classes, size)
    write_bytes(to, data)
    about = {
        "classes": list(classes),
        "takes": f"RGB, uint8 [{size[0]}, {size[1]}, 3]",
        "gives": f"index of the best class, int32 [{size[0]}, {size[1]}]",
        "model": str(trained.source),
        "step": trained.step,
        "jax": jax.__version__,
    }
    names = to.with_name(f"{to.name}.json")
    write_text(names, json.dumps(about, indent=1, ensure_ascii=False))
    console.print(f"{to}: {len(classes)} classes, {size[0]} x {size[1]} pixels, {in_bytes(len(data))}; {names}")
