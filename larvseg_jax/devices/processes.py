"""Several processes of one run, one per host: how they find each other, and what they have to agree on."""

from __future__ import annotations

import contextlib
import os
import signal
import threading
from collections.abc import Iterator

import jax
from jax.experimental import multihost_utils

from larvseg_jax.console import console
from larvseg_jax.errors import UserError

AUTO = "auto"


def start(coordinator: str, num_processes: int | None, process_id: int | None) -> None:
    """Joins the processes of a run; without a coordinator it is one process, and nothing happens.

    To be called before JAX touches a device. Afterwards only the first process prints to the terminal.

    Args:
      coordinator: "host:port" of process 0, the same on every process; or "auto" on a cluster that JAX
        knows (TPU pods, SLURM, Open MPI, Kubernetes), which then knows the two numbers, too.
      num_processes: how many there are.
      process_id: which one this is, from 0.
    """
    if coordinator in ("", AUTO):
        if num_processes is not None or process_id is not None:
            raise UserError(f"--num_processes and --process_id go with --coordinator=host:port, not {coordinator!r}")
        if not coordinator:
            return
    elif num_processes is None or process_id is None or not 0 <= process_id < num_processes:
        raise UserError(
            f"--coordinator={coordinator} with --num_processes={num_processes} and --process_id={process_id}: "
            "every process needs all three, with 0 <= process_id < num_processes"
        )
    try:
        jax.distributed.initialize(None if coordinator == AUTO else coordinator, num_processes, process_id)
    except (RuntimeError, ValueError) as error:
        raise UserError(f"--coordinator={coordinator}: {error}; give --coordinator=host:port") from error
    console.quiet = not is_first_process()


def is_first_process() -> bool:
    """Whether this process writes what a run has one of: log, report, config.json, TensorBoard files."""
    return jax.process_index() == 0


def wait_for_all(name: str) -> None:
    """Returns once every process is here, e.g. before reading what only the first one writes."""
    if jax.process_count() > 1:
        multihost_utils.sync_global_devices(name)


class Stopping:
    """Whether the run was asked to stop, by SIGTERM (preemption) or SIGINT (Ctrl-C); call it at every step."""

    def __init__(self) -> None:
        self.signal: int | None = None

    def __call__(self, step: int) -> bool:
        """All processes get the same answer for a step, whichever of them the signal reached."""
        if jax.process_count() > 1:
            # JAX listens to SIGTERM itself and agrees on a step that no process has passed yet.
            return multihost_utils.reached_preemption_sync_point(step)
        return self.signal is not None

    def asked_for(self) -> bool:
        """Whether this process got a signal; the others may not know yet."""
        return self.signal is not None

    def exit_code(self) -> int:
        """That of a program that the signal ended: 130 for Ctrl-C, 143 for SIGTERM, whichever process got it."""
        return 128 + (self.signal or signal.SIGTERM)

    def asked(self, number: int, _frame: object) -> None:
        """The signal's handler. A second Ctrl-C ends the program at once."""
        if number == signal.SIGINT:
            signal.signal(signal.SIGINT, signal.default_int_handler)
            if jax.process_count() > 1 and self.signal is None:
                os.kill(os.getpid(), signal.SIGTERM)
        self.signal = number


@contextlib.contextmanager
def stop_requested() -> Iterator[Stopping]:
    """Turns SIGTERM and Ctrl-C into a wish to save and stop after the current step."""
    stopping = Stopping()
    caught = [signal.SIGINT] if jax.process_count() > 1 else [signal.SIGINT, signal.SIGTERM]
    if threading.current_thread() is not threading.main_thread():
        caught = []  # only the main thread may listen
    before = {number: signal.signal(number, stopping.asked) for number in caught}
    try:
        yield stopping
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
