"""What kind of device a program is written for; for any: exported ones."""

from __future__ import annotations

import contextlib
import contextvars
from collections.abc import Iterator
from typing import Literal

import jax

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


def traced_for() -> str:
    """The kind of device that what is being traced is for, "cpu", "gpu" or "tpu"; "any" where `on_any_device` says so.

    That of the mesh that is set, which need not be here, else that of this process.
    """
    if for_any_device():
        return "any"
    mesh = jax.sharding.get_abstract_mesh()
    described = None if mesh.empty else mesh.abstract_device
    return described.platform if described else jax.local_devices()[0].platform
