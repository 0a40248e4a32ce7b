"""A page to play with: larvseg page --model=animals, then open the address that it prints (docs/page.md).

Drop a picture, choose classes, point at what was found, teach a class by clicks; with two models both are shown side by
side. It is served to this machine alone, needs no network, and keeps nothing: Ctrl-C ends it and deletes its files.
"""

from __future__ import annotations

import importlib.util
import socket

from larvseg_jax.cli import Flags, Given
from larvseg_jax.commands._places import MODEL, define_pretrained, pretrained_of
from larvseg_jax.commands._windows import define_windows, scale_of
from larvseg_jax.errors import UserError
from larvseg_jax.shipped.shipped import located
from larvseg_jax.weights.places import check_model

INTERRUPTED = "nothing was kept; the same command begins again"

_MEGAPIXELS = 50


def define(flags: Flags) -> None:
    """Adds the flags."""
    flags.texts("model", f"The model: {MODEL}. Given twice: two models, to be compared.")
    flags.texts("run", "The same as --model, as other commands call it.")
    flags.whole("step", None, "Step of the checkpoint; by default the newest.", least=0)
    define_pretrained(flags)
    flags.number("memory_gb", 1.5, "Memory above the weights that may be used, GiB.", least=0.0)
    flags.whole("max_megapixels", _MEGAPIXELS, "The largest picture that is read, millions of pixels.", least=1)
    define_windows(flags)
    flags.whole("port", 7860, "Port of this machine that the page is served at.", least=1)


def main(given: Given) -> None:
    """Serves the page until Ctrl-C."""
    models = [*given.model, *given.run]
    if not models:
        raise UserError(f"--model is missing: give {MODEL}")
    if len(models) > 2:
        raise UserError(f"{len(models)} models are given: give one, or two to be compared")
    pretrained, scale = pretrained_of(given), scale_of(given)
    if importlib.util.find_spec("gradio") is None:
        raise UserError("the page is made with Gradio: pip install -e '.[page]', and again")
    for model in models:
        check_model(located(model, pretrained)[0], given.step)
    _check_port(given.port)
    # Imported late: a mistyped flag is answered before JAX has started.
    from larvseg_jax.page.serve import serve
    from larvseg_jax.page.session import Limits

    limits = Limits(int(given.memory_gb * 2**30), given.max_megapixels)
    serve(models, given.port, limits, step=given.step, pretrained=pretrained, scale=scale, whole=given.whole)


def _check_port(port: int) -> None:
    """UserError if a page cannot be served there, before a model is loaded for it."""
    try:
        with socket.socket() as probe:
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            probe.bind(("127.0.0.1", port))
    except (OSError, OverflowError) as error:
        reason = getattr(error, "strerror", None) or "65535 is the last one"
        raise UserError(f"--port={port} cannot be used ({reason}): give another one") from error
