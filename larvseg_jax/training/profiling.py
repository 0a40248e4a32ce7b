"""`--profile=START:STOP`: a trace of some steps for TensorBoard's profile page and for Perfetto."""

from __future__ import annotations

import re
from pathlib import Path
from types import TracebackType
from typing import Any

import jax

from larvseg_jax.console import console
from larvseg_jax.errors import UserError
from larvseg_jax.training.telemetry import Clock


def parse_window(text: str, total_steps: int) -> tuple[int, int]:
    """(START, STOP) of "START:STOP": traced is what runs when START steps are done until STOP are."""
    match = re.fullmatch(r"(\d+):(\d+)", text)
    if match is None or int(match[1]) >= int(match[2]):
        raise UserError(f"--profile={text}: give START:STOP, two numbers of steps, the first the smaller")
    start, stop = int(match[1]), int(match[2])
    if start >= total_steps:
        raise UserError(f"--profile={text}: the run ends at step {total_steps}, so START must be less")
    return start, stop


class Profile:
    """Traces a window of steps into folder/plugins/profile/<time>/; does nothing if `window` is None.

    The first process traces its devices; the others run alongside.
    """

    def __init__(self, folder: Path, window: tuple[int, int] | None) -> None:
        self._folder = folder
        self._window = window if jax.process_index() == 0 else None
        self._on = False

    def begin(self, step: int, metrics: Any, clock: Clock) -> None:
        """Starts the trace if it is time; `metrics` are those of the last step, which is waited for."""
        if self._window is None or self._on:
            return
        start, stop = self._window
        if step >= stop:
            console.print(f"--profile={start}:{stop}: the run is at step {step} already, nothing is traced")
            self._window = None
        elif step >= start:
            jax.block_until_ready(metrics)
            options = jax.profiler.ProfileOptions()
            options.python_tracer_level = 0  # every Python call of the data threads would bury the rest
            with clock.paused():
                jax.profiler.start_trace(self._folder, profiler_options=options)
            self._on = True

    def end(self, step: int, metrics: Any, clock: Clock) -> None:
        """Ends and writes the trace if it is time."""
        if self._on and self._window is not None and step >= self._window[1]:
            jax.block_until_ready(metrics)
            with clock.paused():
                self._write()

    def _write(self) -> None:
        self._on, self._window = False, None
        jax.profiler.stop_trace()
        console.print(f"profile: {self._folder.absolute() / 'plugins' / 'profile'}")

    def __enter__(self) -> Profile:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._on:
            self._write()
