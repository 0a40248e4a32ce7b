"""Checks of files and folders that a command line names, before anything is loaded or computed for them."""

from __future__ import annotations

import tempfile
from pathlib import Path

from larvseg_jax.errors import UserError


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
