"""What Orbax leaves behind of a save that has failed: threads that wait, and errors that it tells many times."""

from __future__ import annotations

import functools
import logging
import sys
import threading

from orbax.checkpoint._src.futures import future  # its threads have no public name


def end_what_waits() -> None:
    """Ends the threads of a save that wait for a part of it that has failed.

    They would wait for twenty minutes, and the end of the program for them. Told that it has come, they fail, too.
    """
    for thread in threading.enumerate():
        if isinstance(thread, future._SignalingThread):
            future.set_signals(thread._receive_signals, operation_id=thread._operation_id)


@functools.cache
def keep_orbax_quiet() -> None:
    """Keeps Orbax from telling, each with a traceback, the errors of a save that it also raises."""

    def is_not_orbax(entry: logging.LogRecord) -> bool:
        return "orbax" not in entry.pathname and "never retrieved" not in str(entry.msg)

    for name in ("absl", "asyncio"):
        logging.getLogger(name).addFilter(is_not_orbax)
    others = sys.unraisablehook

    def without_orbax(found: sys.UnraisableHookArgs) -> None:
        if not (found.object is None and str(found.exc_value) == "Event loop is closed"):  # writes that came too late
            others(found)

    sys.unraisablehook = without_orbax
