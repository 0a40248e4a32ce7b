"""What the settings of a model say of its classes besides their names; whatever kind of file they come from."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from larvseg_jax.errors import UserError


def aliases_in(settings: Mapping[str, Any], source: Path) -> tuple[tuple[str, str], ...]:
    """Other names of classes, (name, class), as `Vocabulary.aliases`; UserError, naming `source`, if they are none."""
    try:
        return tuple((str(other), str(name)) for other, name in settings.get("vocabulary", {}).get("aliases", ()))
    except (AttributeError, TypeError, ValueError) as error:
        raise UserError(f"{source} does not fit its own description: its aliases are no pairs of names") from error


def lists_in(settings: Mapping[str, Any]) -> tuple[str, ...]:
    """Keys of the class lists that the vocabulary was made of; () if it was not."""
    return tuple(settings.get("class_lists", {}).get("lists", ()))
