"""Programs that are written for any device: exported ones."""

from __future__ import annotations

import contextlib
import contextvars
from collections.abc import Iterator
from typing import Literal

ForAny = Literal["", "branches", "plain"]
"""Whether what is being traced is to run on any device: "", no, on those that it was made for."""

_for_any: contextvars.ContextVar[ForAny] = contextvars.ContextVar("for_any", default="")


@contextlib.contextmanager
def on_any_device(how: ForAny) -> Iterator[None]:
    """What is traced meanwhile is for any device: with branches by the kind of device, or plain, the same for all."""
    token = _for_any.set(how)
    try:
        yield
    finally:
        _for_any.reset(token)


def for_any_device() -> ForAny:
    """As `on_any_device` was told."""
    return _for_any.get()
