"""Turns a checkpoint of the original (PyTorch) into a file of ours, without PyTorch.

larvseg import_original --file=authors.pth [--union=union_a150_c171] --out=model.safetensors
"""

from __future__ import annotations

from pathlib import Path

from larvseg_jax.cli import Flags, Given
from larvseg_jax.commands._places import check_output


def define(flags: Flags) -> None:
    """Adds the flags."""
    flags.text("file", None, "Checkpoint of the original, .pth.", required=True)
    flags.text("out", None, "File to write, ending in .safetensors.", required=True)
    flags.text("union", None, "Class list that names its rows; by default the union with as many classes.")
    flags.whole("heads", None, "Attention heads; by default one per 64 features.", least=1)


def main(given: Given) -> None:
    """Converts the file."""
    check_output(given.out, "out", ".safetensors")
    # Imported late: a mistyped flag is answered before JAX has started.
    from larvseg_jax.import_original import import_original

    import_original(Path(given.file), Path(given.out), given.union, given.heads)
