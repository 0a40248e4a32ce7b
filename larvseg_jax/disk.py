"""A disk that is full, read-only or gone: what it says, and files that are written whole or not at all."""

from __future__ import annotations

import contextlib
import os
import re
from pathlib import Path

from larvseg_jax.errors import UserError


def cache_folder() -> Path:
    """The program's own folder among the user's caches: what it holds can be made or fetched again."""
    return Path(os.environ.get("XDG_CACHE_HOME") or "~/.cache").expanduser() / "larvseg_jax"


def refusal(error: BaseException) -> str | None:
    """Why a disk did not take what was written, "No space left on device"; None if the error is no disk's."""
    if isinstance(error, TimeoutError):  # Orbax measures it by the wall clock
        return "it took too long, or the clock has jumped"
    if isinstance(error, OSError) and error.errno is not None:
        return os.strerror(error.errno)
    code = re.search(r"os_error_code='(\d+)'", str(error))  # TensorStore, which writes the arrays of checkpoints
    return os.strerror(int(code[1])) if code else None


def write_text(path: Path, text: str, remedy: str = "make room, or give another folder") -> None:
    """Writes a file in UTF-8, bytes that are not UTF-8 as escapes; one that was there stays until the new one is whole.

    Makes the folder. UserError, with the remedy, if that cannot be done.
    """
    write_bytes(path, text.encode("utf-8", errors="backslashreplace"), remedy)


def write_bytes(path: Path, data: bytes, remedy: str = "make room, or give another folder") -> None:
    """As `write_text`, for any file."""
    partial = path.with_name(f".{path.name}.partial")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        if path.exists() and not path.is_file():  # a pipe, /dev/stdout
            path.write_bytes(data)
            return
        partial.write_bytes(data)
        partial.replace(path)
    except OSError as error:
        with contextlib.suppress(OSError):
            partial.unlink()
        raise UserError(f"{path} cannot be written ({refusal(error)}): {remedy}") from error
