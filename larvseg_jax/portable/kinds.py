"""The kinds of files that a program is written to, and what each takes. Imports nothing that takes time."""

from __future__ import annotations

import importlib.util
from pathlib import Path

from larvseg_jax.errors import UserError

STABLEHLO, ONNX = ".stablehlo", ".onnx"
SUFFIXES = (STABLEHLO, ONNX)

_NEEDS = {  # package, how to get it
    STABLEHLO: ("flatbuffers", "pip install -e '.[portable]'"),
    ONNX: ("jax2onnx", "docs/exports.md says how to install it"),
}


def check_kind(to: Path) -> None:
    """UserError if the package is missing that writes files of this ending."""
    package, remedy = _NEEDS[to.suffix]
    if importlib.util.find_spec(package) is None:
        raise UserError(f"{to} needs the package {package}: {remedy}")
