"""Methods of learning to segment, a folder each; method.py says what all of them are to the rest of the house."""

from __future__ import annotations

import importlib

from larvseg_jax.errors import UserError
from larvseg_jax.methods.method import MethodConfig


def method_config(name: str) -> type[MethodConfig]:
    """The options of the method in the folder of that name here, or in a module of your own ("my_lab.method")."""
    module = name if "." in name else f"{__name__}.{name}"
    try:
        return importlib.import_module(module).Config
    except (ImportError, AttributeError, TypeError, ValueError) as error:
        raise UserError(
            f"method.name is {name!r} ({error}): use larvseg, or the dotted name of a module with a class Config"
        ) from error
