"""Checks of files and folders that a command line names, before anything is loaded or computed for them."""

from __future__ import annotations

import tempfile
from pathlib import Path

from larvseg_jax.cli import Flags, Given
from larvseg_jax.errors import UserError
from larvseg_jax.shipped.shipped import MODELS


def check_output(text: str | None, option: str, suffix: str = "") -> None:
    """UserError if a file cannot be written there or has not that suffix; its folder is made. None: not asked for."""
    if text is None:
        return
    file = Path(text)
    if suffix and file.suffix != suffix:
        raise UserError(f"--{option}={text} cannot be written: give a name that ends in {suffix}")
    if file.is_dir():
        raise UserError(f"--{option}={text} is a folder: give the name of a file in it")
    try:
        file.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=file.parent):
            pass
    except OSError as error:
        raise UserError(f"--{option}={text} cannot be written ({error.strerror}): give another --{option}") from error


def check_folder(text: str | None, option: str) -> None:
    """UserError if it is no folder. None: not asked for."""
    if text is not None and not Path(text).expanduser().is_dir():
        kind = "is a file" if Path(text).exists() else "does not exist"
        raise UserError(f"--{option}={text} {kind}: give the folder that the data lies in")


MODEL = (
    "the folder of a run or of a checkpoint, a .safetensors file, or the name of a model that comes with the program "
    f"({', '.join(MODELS)})"
)
"""What --model takes where photos are segmented."""


def define_pretrained(flags: Flags) -> None:
    """Adds --pretrained, for models of which a file holds only what was learnt."""
    flags.text(
        "pretrained",
        None,
        "The weights that the model was learnt on, if it is a file of export --learnt (docs/weights.md).",
    )


def pretrained_of(given: Given) -> Path | None:
    """The file or folder of --pretrained; UserError if there is none of that name."""
    if given.pretrained is None:
        return None
    path = Path(given.pretrained).expanduser()
    if not path.exists():
        raise UserError(
            f"--pretrained={given.pretrained} does not exist: give the weights that the model was learnt on"
        )
    return path
