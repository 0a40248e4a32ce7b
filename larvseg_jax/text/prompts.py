"""Prompts: sentences with a place for the name of a class (spec of CLIP, and of those who use it)."""

from __future__ import annotations

import functools
import json
from collections.abc import Mapping, Sequence
from pathlib import Path

from larvseg_jax.errors import UserError

_FILE = Path(__file__).with_name("prompt_templates.json")
_PLACE = "{}"


@functools.cache
def known_templates() -> Mapping[str, tuple[str, ...]]:
    """The templates that have a name: single ones, and those whose text vectors are averaged."""
    stored = json.loads(_FILE.read_text("utf-8"))
    single = {name: (template,) for name, template in stored["single"].items()}
    many = {name: tuple(stored[name]) for name in ("imagenet_80", "vild_14")}
    return {**single, **many, "maskclip_85": (*stored["imagenet_80"], *stored["maskclip_extra_5"])}


def templates(text: str) -> tuple[str, ...]:
    """The templates of a name, or a text with {} in the name's place as the only one; UserError if it is neither."""
    if text in known_templates():
        return known_templates()[text]
    if _PLACE in text:
        return (text,)
    raise UserError(f"{text!r} is no template: use {', '.join(known_templates())}, or a text with {{}} for the name")


def filled(of: Sequence[str], name: str) -> tuple[str, ...]:
    """The prompts of a class: its name in every template."""
    return tuple(template.replace(_PLACE, name) for template in of)
