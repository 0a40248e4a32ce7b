"""Serves the page to this machine, and to nobody else; nothing of it is left behind."""

from __future__ import annotations

import contextlib
import os
import signal
import sys
import tempfile
import threading
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from larvseg_jax.console import console, stage
from larvseg_jax.errors import UserError
from larvseg_jax.page.session import Limits
from larvseg_jax.predict.segmenter import Segmenter
from larvseg_jax.shipped.shipped import PHOTOS

_HERE = "127.0.0.1"
_CSS = Path(__file__).parent / "page.css"
_LARGEST_FILE = "64mb"
# Gradio's page runs code of its components, hence eval; from any other place the browser loads nothing.
_POLICY = (
    "default-src 'self'; script-src 'self' 'unsafe-inline' 'unsafe-eval'; style-src 'self' 'unsafe-inline'; "
    "img-src 'self' data: blob:; font-src 'self' data:; connect-src 'self' data: blob:; worker-src 'self' blob:; "
    "base-uri 'self'; form-action 'self'; frame-ancestors 'none'"
)


class OwnSourcesOnly:
    """Middleware: tells the browser that the page may load nothing from elsewhere."""

    def __init__(self, app: Any) -> None:
        self._app = app

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        """Adds the header to an answer."""

        async def send_with_policy(message: Any) -> None:
            if message["type"] == "http.response.start":
                policy = (b"content-security-policy", _POLICY.encode())
                message = {**message, "headers": [*message.get("headers", ()), policy]}
            await send(message)

        await self._app(scope, receive, send_with_policy if scope["type"] == "http" else send)


def serve(
    models: Sequence[str],
    port: int,
    limits: Limits,
    *,
    step: int | None = None,
    pretrained: Path | None = None,
    scale: tuple[int, int] | None = None,
    whole: bool = False,
) -> None:
    """Loads the models and serves the page until Ctrl-C or SIGTERM.

    Args:
      models: as `Segmenter.load` takes them.
      port: of this machine.
      limits: of a picture.
      step, pretrained, scale, whole: of every model, as `Segmenter.load` takes them.

    Raises:
      UserError: a model cannot be loaded, or the port is taken.
    """
    with stage("model"):
        loaded = [Segmenter.load(model, step, pretrained=pretrained, scale=scale, whole=whole) for model in models]
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))  # so that the files go
    with running(dict(zip(short_names(models), loaded, strict=True)), port, limits) as address:
        console.print(f"the page is {address} (on this machine alone; Ctrl-C ends it)")
        with contextlib.suppress(KeyboardInterrupt):
            threading.Event().wait()


def short_names(models: Sequence[str]) -> list[str]:
    """What the page calls the models: the last parts of their paths, as many as tell them apart."""
    names: list[str] = []
    parts = [Path(model).expanduser().with_suffix("").parts or (model,) for model in models]
    for number in range(1, max(map(len, parts)) + 1):
        names = ["/".join(part[-number:]) for part in parts]
        if len(set(names)) == len(names):
            return names
    return [f"{name} ({i})" for i, name in enumerate(names, 1)] if len(models) > 1 else names


@contextlib.contextmanager
def running(models: Mapping[str, Segmenter], port: int, limits: Limits) -> Iterator[str]:
    """The page while it is served, its address; all files that it makes are deleted at the end.

    Args:
      models: name -> model.
      port: of this machine.
      limits: of a picture.

    Raises:
      UserError: the port is taken.
    """
    with tempfile.TemporaryDirectory(prefix="larvseg-page-", ignore_cleanup_errors=True) as folder:
        os.environ["GRADIO_TEMP_DIR"] = folder  # read when the components are made
        # Imported late: Gradio takes seconds.
        import gradio as gr
        from starlette.middleware import Middleware
        from starlette.middleware.trustedhost import TrustedHostMiddleware

        from larvseg_jax.page.blocks import build

        fonts: Any = dict(
            font=["system-ui", "sans-serif"], font_mono=["ui-monospace", "monospace"]
        )  # none from the net
        # The name in a request is checked, too: a page elsewhere can call this machine by a name of its own.
        middleware = [Middleware(OwnSourcesOnly), Middleware(TrustedHostMiddleware, allowed_hosts=[_HERE, "localhost"])]
        blocks = build(models, limits, Path(folder))
        off: Any = dict(
            share=False, run_history=False, enable_monitoring=False, ssr_mode=False, mcp_server=False, pwa=False
        )
        try:
            _, address, _ = blocks.launch(
                server_name=_HERE,
                server_port=port,
                prevent_thread_lock=True,
                quiet=True,
                inline=False,
                max_file_size=_LARGEST_FILE,
                allowed_paths=[str(PHOTOS)],
                footer_links=[],
                app_kwargs={"middleware": middleware},
                theme=gr.themes.Default(**fonts),
                css_paths=_CSS,
                **off,
            )
        except OSError as error:
            raise UserError(f"--port={port} cannot be used ({error}): give another one") from error
        try:
            yield address
        finally:
            blocks.close(verbose=False)
            os.environ.pop("GRADIO_TEMP_DIR", None)
