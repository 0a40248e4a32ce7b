"""Batches read a few steps ahead, so that all processes can stop, with everything saved, before one that is none."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterator
from typing import TypeVar

from larvseg_jax.errors import UserError

T = TypeVar("T")

AHEAD = 4
"""Steps. Two for the processes to agree on one that none has passed (the fastest is at most two steps ahead of the
slowest, training/recorder.py), and two to spare."""


def looked_ahead(batches: Iterator[T], foreseen: Callable[[UserError], None], ahead: int = AHEAD) -> Iterator[T]:
    """The same batches. If one cannot be made, `foreseen` hears the error `ahead` batches before it is raised."""
    waiting: deque[T] = deque()
    error: UserError | None = None
    going = True
    while going or waiting:
        while going and len(waiting) <= ahead:
            try:
                waiting.append(next(batches))
            except StopIteration:
                going = False
            except UserError as found:
                error, going = found, False
                foreseen(found)
        if waiting:
            yield waiting.popleft()
    if error is not None:
        raise error
