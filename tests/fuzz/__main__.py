"""Gives every reader of users' files inputs that are damaged on purpose: python -m tests.fuzz [--inputs=100000]

Whatever is neither read nor refused in one line (a traceback, gigabytes, a message of several lines) is a finding: it
is printed, its input saved in --out, and --repeat=FILE gives it to its reader again. Exit status 1 if there is any.
"""

from __future__ import annotations

import contextlib
import faulthandler
import os
import sys
import time
from collections.abc import Iterator
from pathlib import Path

os.environ.setdefault("JAX_PLATFORMS", "cpu")
os.environ.setdefault("MPLBACKEND", "Agg")

from larvseg_jax.cli import Flags, Given, guarded
from larvseg_jax.console import console, track
from larvseg_jax.errors import UserError
from tests.fuzz.fuzzing import Fuzzer, plan, prepared
from tests.fuzz.reader import Reader


def flags(argv: list[str]) -> Flags:
    """What can be given."""
    found = Flags("fuzz", argv)
    found.whole("inputs", 100_000, "how many", 1)
    found.number("seconds", 0, "stop after so many; 0: not before the last input", 0)
    found.whole("seed", 0, "of what is done to the inputs")
    found.text("reader", "", "only this one")
    found.text("out", "runs/fuzz", "folder for the inputs that are findings")
    found.text("repeat", "", "a saved input, to be given once more")
    return found


def _until(items: list[tuple[Reader, int]], seconds: float) -> Iterator[tuple[Reader, int]]:
    """The items, but none after so many seconds."""
    begun = time.monotonic()
    for item in items:
        if seconds and time.monotonic() - begun > seconds:
            return
        yield item


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    """Hides what libraries write to stderr about odd files; a fault of one is still reported there."""
    stderr, nowhere = os.dup(2), os.open(os.devnull, os.O_WRONLY)
    faulthandler.enable(stderr)
    os.dup2(nowhere, 2)
    try:
        yield
    finally:
        os.dup2(stderr, 2)
        os.close(nowhere)  # stderr stays open: the fault handler writes to it


def main(given: Given) -> None:
    """Runs; leaves with 1 if there are findings."""
    fuzzer = Fuzzer(Path(given.out))
    with prepared() as readers:
        if given.repeat:
            path = Path(given.repeat)
            label = path.name.removeprefix("under_way_").partition("-")[0]
            (reader,) = (reader for reader in readers if reader.name.replace(" ", "_") == label)
            reader.read(path.read_bytes(), Path(given.out))
            return
        names = [reader.name for reader in readers]
        if given.reader and given.reader not in names:
            raise UserError(f"--reader={given.reader}: use one of {', '.join(names)}")
        chosen = [reader for reader in readers if given.reader in ("", reader.name)]
        items = plan(chosen, given.inputs, given.seed)
        begun = time.monotonic()
        with _quiet():
            for reader, number in track(_until(items, given.seconds), len(items), "fuzz"):
                fuzzer.give(reader, reader.input(given.seed, number), f"{given.seed}-{number}")
    console.print(fuzzer.table(), markup=False)
    kinds = len(fuzzer.findings)
    console.print(f"{time.monotonic() - begun:.0f} s, seed {given.seed}: {kinds} kinds of findings", markup=False)
    if kinds:
        sys.exit(1)


if __name__ == "__main__":
    guarded(main, flags(sys.argv[1:]).parse())
