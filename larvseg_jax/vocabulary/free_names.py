"""Classes of a model that takes any name: from what a user writes to names, without a vocabulary."""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path

from larvseg_jax.errors import UserError
from larvseg_jax.vocabulary.class_lists import class_list, keys


def free_names(texts: Sequence[str]) -> tuple[str, ...]:
    """The names that are meant, each once, in order of mention.

    A text is a class list of the package, a file with a name per line (@names.txt, or a path), or names separated by
    commas, each of which may be a list or a file.

    Raises:
      UserError: a file cannot be read, or nothing is named.
    """
    found = [name for text in texts for part in _parts(text) for name in _names(part.strip())]
    if not found:
        raise UserError("no class is named: give at least one")
    return tuple(dict.fromkeys(found))


def _parts(text: str) -> list[str]:
    return [text] if Path(text.removeprefix("@")).expanduser().is_file() else text.split(",")


def _names(text: str) -> tuple[str, ...]:
    if text in keys():
        return class_list(text).titles
    is_path = re.search(r"[./\\]", text) and Path(text).expanduser().is_file()
    if not text.startswith("@") and not is_path:
        return (text,) if text else ()
    path = Path(text.removeprefix("@")).expanduser()
    try:
        lines = path.read_text("utf-8-sig").splitlines()
    except (OSError, ValueError) as error:
        reason = getattr(error, "strerror", None) or "no text in UTF-8"
        raise UserError(f"{text}: the file cannot be read ({reason}): give a text file, a name per line") from error
    return tuple(line.strip() for line in lines if line.strip())
