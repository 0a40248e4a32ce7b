"""Several hosts prepare one data set: each writes its part of the shards into one folder that all of them see.

The shards, their names and their records do not depend on the number of parts. Locks (flock) keep runs apart: a run
without a part has the folder alone, runs of different parts share it.
"""

from __future__ import annotations

import contextlib
import dataclasses
import fcntl
import json
import re
from collections.abc import Iterator, Sequence
from pathlib import Path

from data_pipelines.builders.shards import Shard, is_written, write_json
from larvseg_jax.console import console, first_few
from larvseg_jax.errors import UserError

_PARTS = "parts.json"


@dataclasses.dataclass(frozen=True)
class Part:
    """The `number`-th of `count` parts of the shards, 1 to `count`; written "3/16"."""

    number: int
    count: int

    @classmethod
    def of(cls, text: str) -> Part:
        """The part that --part names; UserError if it names none."""
        match = re.fullmatch(r"(\d{1,6})/(\d{1,6})", text)
        part = cls(int(match[1]), int(match[2])) if match else cls(0, 0)
        if not 1 <= part.number <= part.count:
            raise UserError(f"--part={text}: give which part of how many, such as 1/16 to 16/16")
        return part

    def shards(self, shards: Sequence[Shard]) -> list[Shard]:
        """Its shards: every `count`-th, so that the parts are of about one size."""
        return list(shards[self.number - 1 :: self.count])

    def __str__(self) -> str:
        return f"{self.number}/{self.count}"


@contextlib.contextmanager
def in_use(work: Path, part: Part | None) -> Iterator[None]:
    """Keeps other runs out of the folder, or out of the part; the lock ends with this process, however that ends."""
    with contextlib.ExitStack() as locks:
        locks.enter_context(_locked(work / "run.lock", fcntl.LOCK_SH if part else fcntl.LOCK_EX, str(work)))
        if part:
            name = f"part-{part.number}-of-{part.count}.lock"
            locks.enter_context(_locked(work / name, fcntl.LOCK_EX, f"part {part} of {work}"))
        yield


@contextlib.contextmanager
def planning(work: Path) -> Iterator[None]:
    """One run at a time looks at the plan, and waits for the one before it."""
    with (work / "plan.lock").open("a+") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        yield


@contextlib.contextmanager
def _locked(path: Path, kind: int, what: str) -> Iterator[None]:
    with path.open("a+") as file:  # NFS asks for a file that may be read and written
        try:
            fcntl.flock(file, kind | fcntl.LOCK_NB)
        except BlockingIOError:
            raise UserError(f"{what} is being written by another run: wait for it, or stop it") from None
        yield


def agree(work: Path, part: Part | None, shards: Sequence[Shard]) -> None:
    """Notes in how many parts the data set is written.

    Raises:
      UserError: it was begun in another number of parts; or a run without a part, which puts them together, finds that
        some are not written.
    """
    file = work / _PARTS
    count = _count(file)
    if count is None:
        if part:
            write_json(file, {"parts": part.count})
    elif part is None:
        _check_complete(file, missing_parts(shards, count), shards)
    elif count != part.count:
        raise UserError(
            f"--part={part}: {work} was begun in {count} parts: give one of {count}, or, when none of them is being "
            f"written any more, delete {file} (the shards that are written are kept)"
        )


def _check_complete(file: Path, missing: Sequence[Part], shards: Sequence[Shard]) -> None:
    if missing:
        first = next(shard.path.name for shard in missing[0].shards(shards) if not is_written(shard))
        commands = first_few([f"--part={part}" for part in missing], 3)
        raise UserError(
            f"{file.parent} lacks {_named(missing)} (the first shard: {first}): run the same command with {commands}, "
            f"or delete {file} to write here what is missing"
        )


def report(part: Part, shards: Sequence[Shard]) -> None:
    """Says that a part is written, and what is to be done when."""
    console.print(f"part {part} is written: {len(part.shards(shards))} of {len(shards)} shards")
    missing = missing_parts(shards, part.count)
    if missing:
        console.print(f"not written yet: {_named(missing)}; after them, the same command without --part")
    else:
        console.print("all parts are written: the same command without --part makes the data set of them")


def missing_parts(shards: Sequence[Shard], count: int) -> list[Part]:
    """The parts with a shard that is not written, ascending."""
    parts = [Part(number, count) for number in range(1, count + 1)]
    return [part for part in parts if not all(map(is_written, part.shards(shards)))]


def clear(folder: Path) -> None:
    """Removes what the runs left to agree by."""
    for file in (folder / _PARTS, *folder.glob("*.lock")):
        file.unlink(missing_ok=True)


def _count(file: Path) -> int | None:
    """In how many parts the data set was begun; None: as a whole."""
    try:
        count = json.loads(file.read_text())["parts"]
    except FileNotFoundError:
        return None
    except (ValueError, KeyError, TypeError):
        count = 0
    if not isinstance(count, int) or count < 1:
        raise UserError(f"{file} does not say in how many parts the data set is written: delete it")
    return count


def _named(parts: Sequence[Part]) -> str:
    return f"part{'s' * (len(parts) > 1)} {first_few(map(str, parts))}"
