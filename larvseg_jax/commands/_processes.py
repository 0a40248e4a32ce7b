"""The flags of a command that may run as several processes: --coordinator and what goes with it."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator

from larvseg_jax.cli import Flags, Given


def define_processes(flags: Flags) -> None:
    """Adds the flags."""
    flags.text(
        "coordinator",
        "",
        "Several hosts: host:port of process 0, or 'auto' on a TPU pod or under SLURM. Without it: one process.",
    )
    flags.whole("num_processes", None, "How many processes there are; with --coordinator.")
    flags.whole("process_id", None, "Which of them this is, from 0; with --coordinator.")
    flags.whole("peer_timeout", 30, "Seconds of silence after which another process is taken for dead.", least=1)


@contextlib.contextmanager
def several_processes(given: Given) -> Iterator[None]:
    """Joins the other processes, if the flags name any, before anything else touches JAX; tells them of an error."""
    # Imported late: a mistyped flag is answered before JAX is loaded.
    from larvseg_jax.devices import processes

    processes.start(given.coordinator, given.num_processes, given.process_id, given.peer_timeout)
    try:
        yield
    except BaseException as error:
        processes.leave(error)
        raise
    processes.leave(None)
