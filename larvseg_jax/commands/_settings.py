"""Flags of the form --set=option=value, as several commands have them."""

from __future__ import annotations

import ast
from collections.abc import Iterable
from typing import Any

from larvseg_jax.errors import UserError


def setting(text: str, example: str) -> tuple[str, str]:
    """The option and its value, as they were written; `example`: of what could have been."""
    name, equals, value = text.partition("=")
    if not equals or not name:
        raise UserError(f"--set={text} sets nothing: give an option of the config, --set={example}")
    return name, value


def method_settings(texts: Iterable[str]) -> dict[str, Any]:
    """The section `method` of a config that settings of its options make, {"ensemble": {"kind": "simple"}}.

    Raises:
      UserError: one sets nothing, or something that is no option of the method.
    """
    found: dict[str, Any] = {}
    for text in texts:
        name, value = setting(text, "method.ensemble.kind=simple")
        section, *path = name.split(".")
        if section != "method" or not all(path) or not path or path == ["name"]:
            raise UserError(
                f"--set={text}: only options of the method that say how it scores can be set here: method.…=…"
            )
        inner = found
        for part in path[:-1]:
            inner = inner.setdefault(part, {})
            if not isinstance(inner, dict):
                raise UserError(f"--set={text}: {part} was given a value of its own before: leave one of the two out")
        inner[path[-1]] = _value(value)
    return found


def _value(text: str) -> Any:
    """A number, a truth value or a tuple where the text is one in Python; else the text."""
    try:
        return ast.literal_eval(text)
    except (ValueError, SyntaxError):
        return text
