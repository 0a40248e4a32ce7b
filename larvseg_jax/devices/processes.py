"""Several processes of one run, one per host: how they find each other, and what they have to agree on."""

from __future__ import annotations

import contextlib
import itertools
import json
import os
import signal
import sys
import threading
import time
from collections.abc import Iterator
from typing import Any

import jax
from jax._src import distributed  # the store that all processes share has no public name
from jax.experimental import multihost_utils

from larvseg_jax.console import console, printable
from larvseg_jax.devices.watch import Watch, at_exit
from larvseg_jax.errors import Stopped, UserError

AUTO = "auto"
_LONGEST_START = 1800.0  # seconds between the first and the last process that is to say something
_asked = itertools.count()
_watch: Watch | None = None


def start(coordinator: str, num_processes: int | None, process_id: int | None, peer_timeout: int) -> None:
    """Joins the processes of a run; without a coordinator it is one process, and nothing happens.

    To be called before JAX touches a device. Afterwards only the first process prints to the terminal, and each ends
    when another one is gone (devices/watch.py).

    Args:
      coordinator: "host:port" of process 0, the same on every process; or "auto" on a cluster that JAX
        knows (TPU pods, SLURM, Open MPI, Kubernetes), which then knows the two numbers, too.
      num_processes: how many there are.
      process_id: which one this is, from 0.
      peer_timeout: seconds of silence after which another process is taken for dead.
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
        jax.distributed.initialize(
            None if coordinator == AUTO else coordinator,
            num_processes,
            process_id,
            heartbeat_timeout_seconds=max(100, 2 * peer_timeout),  # ours says in one line what JAX's aborts with
        )
    except (RuntimeError, ValueError) as error:
        raise UserError(f"--coordinator={coordinator}: {error}; give --coordinator=host:port") from error
    _start_watch(float(peer_timeout))
    console.quiet = not is_first_process()
    if jax.default_backend() == "cpu":
        # JAX writes those of the first process only. With its programs from disk that one would be in the first step
        # while the others compile, and Gloo, which connects CPUs, waits for them no longer than 30 s.
        jax.config.update("jax_enable_compilation_cache", False)


def _start_watch(timeout: float) -> None:
    global _watch
    state = distributed.global_state
    store: Any = state.client
    watch, key = Watch(state.process_id, state.num_processes, timeout), "larvseg/watch"
    if state.process_id == 0:
        store.key_value_set(key, json.dumps(watch.listen()))
    else:
        said = json.loads(store.blocking_key_value_get(key, round(1000 * _LONGEST_START)))
        address = str(state.coordinator_address).rpartition(":")[0].strip("[]")
        try:
            watch.join(address, said)
        except (OSError, TimeoutError) as error:
            print(
                f"port {said['port']} of {address} cannot be reached ({error or 'no answer'}): "
                f"process {state.process_id} and the others will not notice at once when one of them is gone",
                file=sys.stderr,
            )
    at_exit(watch)
    _watch = watch


def leave(error: BaseException | None) -> None:
    """To be called when the work is done or has ended with an error, which then ends the other processes, too."""
    if _watch is None:
        return
    if isinstance(error, jax.errors.JaxRuntimeError):
        # Perhaps of a transfer whose other end is gone: the watch says which, and ends this process, or will soon.
        time.sleep(_watch.timeout + 1)
    if error is None or isinstance(error, Stopped):  # all stop together
        _watch.leave(0)
    else:
        code = 2 if isinstance(error, UserError) else 130 if isinstance(error, KeyboardInterrupt) else 1
        _watch.leave(code, printable(f"{error}" if code == 2 else f"{type(error).__name__}: {error}"))


def tell_data_wait(seconds: float) -> None:
    """Tells the first process how long the devices of this one stood still for want of data, per step."""
    if _watch is not None:
        _watch.tell_wait(seconds)


def data_waits() -> dict[int, tuple[str, float]]:
    """Process -> (its host, what it told last); the first process knows all, {} without others."""
    return {} if _watch is None else {process: (_watch.hosts[process], s) for process, s in _watch.waits.items()}


def from_all(name: str, text: str) -> list[str]:
    """What every process says, in their order; to be called by all of them, in the same order.

    UserError if one of them is not heard in half an hour. Nothing is computed on a device, so nothing can hang.
    """
    if jax.process_count() == 1:
        return [text]
    number, found = next(_asked), []
    store: Any = distributed.global_state.client
    store.key_value_set(f"larvseg/{number}/{jax.process_index()}", text)
    for process in range(jax.process_count()):
        try:
            found.append(store.blocking_key_value_get(f"larvseg/{number}/{process}", round(1000 * _LONGEST_START)))
        except jax.errors.JaxRuntimeError as error:
            if "DEADLINE" not in str(error):
                raise
            raise UserError(
                f"process {process} has not said its {name} in {_LONGEST_START:g} s: look at what it prints"
            ) from error
    return found


def is_first_process() -> bool:
    """Whether this process writes what a run has one of: log, report, config.json, TensorBoard files."""
    return jax.process_index() == 0


def wait_for_all(name: str) -> None:
    """Returns once every process is here, e.g. before reading what only the first one writes."""
    if jax.process_count() > 1:
        multihost_utils.sync_global_devices(name)


class Stopping:
    """Whether the run was asked to stop, by SIGTERM (preemption) or SIGINT (Ctrl-C); call it at every step.

    Attributes:
      signal: the one that this process got, if JAX left it to us.
      foreseen: why this process, one of several, asked for it itself.
    """

    def __init__(self) -> None:
        self.signal: int | None = None
        self.foreseen: UserError | None = None

    def __call__(self, step: int) -> bool:
        """All processes get the same answer for a step, whichever of them the signal reached."""
        if jax.process_count() > 1:
            # JAX listens to SIGTERM itself and agrees on a step that no process has passed yet.
            return multihost_utils.reached_preemption_sync_point(step)
        return self.signal is not None

    def foresee(self, error: UserError) -> None:
        """Asks all processes to stop: this one knows that it will have no batch for a step a little later."""
        self.foreseen = error
        os.kill(os.getpid(), signal.SIGTERM)  # JAX hears it

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
