"""The processes of one run watch each other: one that is gone, or has ended with an error, ends the others in time.

Every process keeps a connection to the first one and says every few seconds that it is there. A killed process closes
its connection, a host that is down is silent; what the first one learns of another it tells all. Connections and not
files in the run's folder: they know of a death at once, a disk that stalls does not look like one, and no clocks of two
hosts are compared.
"""

from __future__ import annotations

import asyncio
import atexit
import contextlib
import ctypes
import json
import os
import secrets
import signal
import socket
import sys
import threading
from collections.abc import Coroutine, Mapping
from typing import Any

from larvseg_jax.console import printable

GONE = 3
"""Exit code of a process that ends because another one of its run is gone or has ended with an error."""

GRACE = 5.0  # seconds for a process to end by itself once another has ended with an error: often it has the same one
_LONGEST = 500  # characters of another's error


class Watch:
    """One process's part. A thread of its own hears and speaks, whatever the rest of the process waits for.

    Attributes:
      timeout: seconds of silence after which another process is taken for dead.
      hosts: process -> its host, of those that are known here: the first process knows all.
      waits: process -> what it last said by `tell_wait`, seconds; the first process knows all.
    """

    def __init__(self, process: int, count: int, timeout: float) -> None:
        self.hosts = {process: socket.gethostname()}
        self.waits: dict[int, float] = {}
        self.timeout = timeout
        self._process = process
        self._others = set(range(count)) - {process}
        self._left: set[int] = set()  # they have said that they end
        self._closed: set[int] = set()  # their connection is no more
        self._writers: dict[int, asyncio.StreamWriter] = {}
        self._tasks: set[asyncio.Task[None]] = set()
        self._code: int | None = None  # with which this process ends, if it has said so
        self._ending = False
        self._settled = threading.Event()
        self._loop = asyncio.new_event_loop()
        self._server: asyncio.Server | None = None
        self._thread = threading.Thread(target=self._loop.run_forever, name="watch", daemon=True)
        self._thread.start()

    def listen(self) -> dict[str, Any]:
        """The first process's part: awaits the others; what they need to `join` it."""
        token = secrets.token_hex(16)

        async def serve() -> int:
            dual = socket.has_dualstack_ipv6()
            family = socket.AF_INET6 if dual else socket.AF_INET
            bound = socket.create_server(("", 0), family=family, dualstack_ipv6=dual, backlog=1024)
            self._server = await asyncio.start_server(
                lambda reader, writer: self._welcome(reader, writer, token), sock=bound
            )
            return bound.getsockname()[1]

        port = asyncio.run_coroutine_threadsafe(serve(), self._loop).result()
        return {"port": port, "token": token, "host": self.hosts[self._process]}

    def join(self, address: str, said: Mapping[str, Any]) -> None:
        """Another process's part: connects to the first one, at an address. OSError if it cannot be reached."""

        async def connect() -> None:
            opening = asyncio.open_connection(address, said["port"])
            reader, writer = await asyncio.wait_for(opening, self.timeout)
            own = {"token": said["token"], "process": self._process, "host": self.hosts[self._process]}
            writer.write(_line(own))
            self._begin(self._follow(0, said["host"], reader, writer))

        asyncio.run_coroutine_threadsafe(connect(), self._loop).result()

    def tell_wait(self, seconds: float) -> None:
        """Tells the first process how long this one's devices wait for its data, per step."""
        self._loop.call_soon_threadsafe(self._tell_wait, seconds)

    def leave(self, code: int, error: str = "") -> None:
        """To be called when this process is about to end: by itself, or with an error, which ends the others, too."""
        own = {"left": self._process, "host": self.hosts[self._process], "error": error[:_LONGEST]}

        async def say() -> None:
            self._code = code if error else None
            self._left.add(self._process)
            self._tell(own)

        with contextlib.suppress(TimeoutError):
            asyncio.run_coroutine_threadsafe(say(), self._loop).result(2)

    def close(self) -> None:
        """Watches no more: the connections close, and nothing that the others do matters."""

        async def stop() -> None:
            for task in self._tasks:
                task.cancel()
            for writer in self._writers.values():
                writer.transport.abort()
            if self._server is not None:
                self._server.close()

        asyncio.run_coroutine_threadsafe(stop(), self._loop).result()
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join()
        self._loop.close()

    def before_shutdown(self) -> None:
        """At exit, before JAX waits for all processes: those that the error of this one ended will never come."""
        if self._code is None:
            return
        self._settled.wait(2 * GRACE)
        if not self._others <= self._left:
            sys.stdout.flush()
            sys.stderr.flush()
            os._exit(self._code)

    def _begin(self, work: Coroutine[Any, Any, None]) -> None:
        task = self._loop.create_task(work)
        self._tasks.add(task)  # the loop itself would forget it
        task.add_done_callback(self._tasks.discard)

    async def _welcome(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, token: str) -> None:
        with contextlib.suppress(TimeoutError, OSError, ValueError, KeyError, TypeError):  # a stranger
            hello = json.loads(await asyncio.wait_for(reader.readline(), self.timeout))
            if secrets.compare_digest(hello["token"], token):
                self._begin(self._follow(hello["process"], hello["host"], reader, writer))
                return
        writer.close()

    async def _follow(
        self, process: int, host: str, reader: asyncio.StreamReader, writer: asyncio.StreamWriter
    ) -> None:
        """Hears a process until it is gone."""
        self.hosts[process], self._writers[process] = host, writer
        self._begin(self._beat(writer))
        how = "its connection has closed"
        try:
            while text := await asyncio.wait_for(reader.readline(), self.timeout):
                self._hear(process, json.loads(text))
        except TimeoutError:
            how = f"silent for {self.timeout:g} s"
        except (OSError, ValueError):
            pass
        writer.close()
        del self._writers[process]
        self._closed.add(process)
        self._settle()
        if process not in self._left:
            self._end(f"process {process} ({host}) of this run is gone ({how})")

    async def _beat(self, writer: asyncio.StreamWriter) -> None:
        while not writer.is_closing():
            writer.write(_line({}))
            await asyncio.sleep(min(5.0, self.timeout / 6))

    def _hear(self, process: int, said: Mapping[str, Any]) -> None:
        if "end" in said:
            self._end(said["end"])
        elif "wait" in said:
            self.waits[process] = said["wait"]
        elif "left" in said:
            self._left.add(said["left"])
            self._settle()
            if self._process == 0:
                self._tell(said, but=process)
            if said["error"]:
                line = f"process {said['left']} ({said['host']}) of this run has ended with an error: {said['error']}"
                self._loop.call_later(GRACE, self._end, line)

    def _tell(self, said: Mapping[str, Any], but: int | None = None) -> None:
        """To all that are connected: of another process than the first one that is the first one."""
        for process, writer in self._writers.items():
            if process != but:
                writer.write(_line(said))

    def _tell_wait(self, seconds: float) -> None:
        self.waits[self._process] = seconds
        if self._process:
            self._tell({"wait": seconds})

    def _settle(self) -> None:
        if self._others <= self._left | self._closed or 0 in self._closed:
            self._settled.set()

    def _end(self, line: str) -> None:
        if self._code is not None:  # it ends with an error of its own and says that one
            if self._process:
                self._settled.set()
            return
        if self._ending:
            return
        self._ending = True
        self._tell({"end": line})
        # The first process last: with it JAX's coordination service goes, which makes the others abort.
        self._begin(self._exit_after_others(line))

    async def _exit_after_others(self, line: str) -> None:
        for _ in range(30 if self._process == 0 else 0):
            if not self._writers:
                break
            await asyncio.sleep(0.1)
        end_process(f"{line}: start all processes again, they go on from the last checkpoint")


def end_process(line: str) -> None:
    """Ends this process from whatever thread: one that waits for the others on a device cannot be interrupted."""
    # Past Python's streams, which a thread that is blocked may hold.
    os.write(2, f"error: {printable(line)}\n".encode(errors="backslashreplace"))
    os._exit(GONE)


def at_exit(watch: Watch) -> None:
    """Makes the end of a process wait as `before_shutdown` says, and an abort of JAX's wait for the watch.

    When the first process dies, JAX aborts the others in the same moment, before they could say why. The C function
    sleep as the handler of SIGABRT, called with that signal's number, gives the watch those six seconds.
    """
    atexit.register(watch.before_shutdown)  # JAX was imported before, so this runs before its own
    libc = ctypes.CDLL(None)
    libc.signal.argtypes, libc.signal.restype = [ctypes.c_int, ctypes.c_void_p], ctypes.c_void_p
    libc.signal(signal.SIGABRT, ctypes.cast(libc.sleep, ctypes.c_void_p))


def _line(said: Mapping[str, Any]) -> bytes:
    return (json.dumps(said) + "\n").encode()
