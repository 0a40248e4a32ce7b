"""Gives readers inputs that are damaged on purpose, and collects what is neither read nor refused in one line."""

from __future__ import annotations

import collections
import contextlib
import dataclasses
import resource
import shutil
import tempfile
import time
import traceback
import warnings
from collections.abc import Iterator, Sequence
from pathlib import Path
from random import Random

from larvseg_jax.console import console, in_bytes
from larvseg_jax.errors import UserError
from tests.fuzz.reader import Reader
from tests.fuzz.readers import readers

_MOST_MEMORY = 256 * 2**20  # bytes that one input may add to the most the process has ever had
_MOST_SECONDS = 20.0


@dataclasses.dataclass(frozen=True)
class Finding:
    """An input that was neither read nor refused in one line; the same place in the code is one kind."""

    reader: str
    what: str
    where: str
    detail: str = dataclasses.field(compare=False)


@dataclasses.dataclass
class Counts:
    """What became of the inputs of one reader."""

    inputs: int = 0
    refused: int = 0
    read: int = 0
    findings: int = 0


class Fuzzer:
    """Counts and findings of a run; the first input of every kind of finding is saved.

    The input under way lies in `out` too, so that one that ends the process can be repeated.
    """

    def __init__(self, out: Path) -> None:
        out.mkdir(parents=True, exist_ok=True)
        self._out = out
        self.counts: dict[str, Counts] = collections.defaultdict(Counts)
        self.findings: dict[Finding, int] = collections.Counter()

    def give(self, reader: Reader, content: bytes, name: str) -> None:
        """One input; `name` tells it from the others of its reader."""
        label = reader.name.replace(" ", "_")
        (self._out / f"under_way_{label}").write_bytes(content)
        counts = self.counts[reader.name]
        counts.inputs += 1
        finding = _read(reader, content, counts)
        if finding is None:
            return
        counts.findings += 1
        self.findings[finding] += 1
        if self.findings[finding] == 1:
            saved = self._out / f"{label}-{name}"
            saved.write_bytes(content)
            what = finding.detail or finding.what
            text = f"{finding.reader}: {what} at {finding.where}; python -m tests.fuzz --repeat={saved}"
            console.print(text, markup=False)

    def table(self) -> str:
        """Inputs, refused, read and findings of each reader."""
        lines = [f"{'reader':<16}{'inputs':>9}{'refused':>9}{'read':>9}{'findings':>9}"]
        total = Counts()
        for name, counts in self.counts.items():
            lines.append(_row(name, counts))
            for field in vars(total):
                setattr(total, field, getattr(total, field) + getattr(counts, field))
        return "\n".join([*lines, _row("all", total)])


def _row(name: str, counts: Counts) -> str:
    numbers = "".join(f"{number:>9,}" for number in vars(counts).values())
    return f"{name:<16}{numbers}"


def _read(reader: Reader, content: bytes, counts: Counts) -> Finding | None:
    memory, begun = _most_memory(), time.monotonic()
    what = where = detail = ""
    with tempfile.TemporaryDirectory() as folder, warnings.catch_warnings(), console.capture():
        warnings.simplefilter("ignore")
        try:
            reader.read(content, Path(folder))
            counts.read += 1
        except UserError as error:
            if "\n" in str(error):
                what, where = "a message of several lines", _place(error)
            else:
                counts.refused += 1
        except Exception as error:
            # Numbers and names in a message differ from input to input: the place tells the kind.
            what, where = type(error).__name__, _place(error)
            detail = traceback.format_exception_only(error)[-1].strip()[:200]
    seconds, more = time.monotonic() - begun, _most_memory() - memory
    if not what and more > _MOST_MEMORY:
        what, detail = "memory", f"{in_bytes(more)} for {in_bytes(len(content))}"
    if not what and seconds > _MOST_SECONDS:
        what, detail = "time", f"{seconds:.0f} s for {in_bytes(len(content))}"
    return Finding(reader.name, what, where, detail) if what else None


def _place(error: Exception) -> str:
    """File and line of ours that an exception came through last."""
    frames = traceback.extract_tb(error.__traceback__)
    ours = [frame for frame in frames if "/larvseg_jax/" in frame.filename or "/data_pipelines/" in frame.filename]
    place = (ours or frames)[-1]
    return f"{'/'.join(Path(place.filename).parts[-3:])}:{place.lineno}"


def _most_memory() -> int:
    """The most bytes of memory that this process has had."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024


def plan(all_readers: Sequence[Reader], inputs: int, seed: int) -> list[tuple[Reader, int]]:
    """Which reader gets its input of which number, mixed, so that the time left can be told from the time so far."""
    total = sum(reader.share for reader in all_readers)
    given = [(reader, i) for reader in all_readers for i in range(max(round(inputs * reader.share / total), 1))]
    Random(seed).shuffle(given)
    return given


@contextlib.contextmanager
def prepared() -> Iterator[list[Reader]]:
    """The readers, with a folder for as long as they are used."""
    folder = Path(tempfile.mkdtemp())
    try:
        yield readers(folder)
    finally:
        shutil.rmtree(folder, ignore_errors=True)
