"""Photos whose place others take in a run (data.on_error="replace"): counted, named once, and not too many of them."""

from __future__ import annotations

import collections
import json
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import jax
import numpy as np

from data_pipelines.streams import HostBatch, Stream
from larvseg_jax.console import console, first_few, printable
from larvseg_jax.devices.processes import from_all
from larvseg_jax.errors import DataError, UserError
from larvseg_jax.training import history

EVENT = "photo replaced"
"""In history.jsonl, with its stream, its number in the source, and what is wrong with it."""

_NAMED = 3  # photos named in an error or the report


class TooManyUnusable(UserError):
    """More photos than data.most_replaced allows; of several processes all raise it before the same step."""


class _Met(NamedTuple):
    """A photo that cannot be used, and the step in whose batch it was met."""

    step: int
    stream: str
    number: int
    what: str


class Replacements:
    """What was replaced in the batches of the steps that are really taken, whatever was prepared ahead of them.

    Photos are counted once, over restarts, too: those met up to the step `start` of the checkpoint are in
    history.jsonl, and those of them that can be used by now no longer count. Several processes tell each other what
    they have met whenever `counts` is called, which all do for the same steps.
    """

    def __init__(self, workdir: Path, streams: Mapping[str, Stream], most: float, start: int) -> None:
        """`most`: share of the photos of a stream that may be found unusable; one always may."""
        self._workdir, self._most, self._start = workdir, most, start
        self._sizes = {name: len(stream.source) for name, stream in streams.items()}
        self._found: dict[str, dict[int, str]] = {name: {} for name in streams}
        self._rows: list[tuple[int, str]] = []  # step and stream of every replaced row that was not counted yet
        known = [met for met in _events(workdir) if _still_unusable(streams, met)]
        self._noted = {(met.stream, met.number) for met in known}
        self._met = [met for met in known if met.step <= start]
        for name, photos in collections.Counter(met.stream for met in self._met).items():
            console.print(f"  {name}: {photos} of the photos that were replaced still cannot be used")

    def watched(self, batches: Iterator[dict[str, HostBatch]]) -> Iterator[dict[str, HostBatch]]:
        """The same batches, from that of the step `start` + 1 on; TooManyUnusable in place of one that goes too far."""
        for step, batch in enumerate(batches, self._start + 1):
            for name, part in batch.items():
                for unusable in part["unusable"]:
                    self._rows += [(step, name)] if unusable else []
                    self._met += [_Met(step, name, *photo) for photo in unusable]
            if jax.process_count() == 1:
                self._learn(self._met)
                self._met = []
            self._check()
            yield batch

    def counts(self, step: int) -> dict[str, float]:
        """{"<stream>/replaced": rows} of the steps up to this one that were not counted before; no zeros."""
        done = [name for at, name in self._rows if at <= step]
        self._rows = [row for row in self._rows if row[0] > step]
        if jax.process_count() > 1:
            own = json.dumps([done, [met for met in self._met if met.step <= step]])
            shared = [json.loads(text) for text in from_all("replaced photos", own)]
            self._met = [met for met in self._met if met.step > step]
            done = [name for names, _ in shared for name in names]
            self._learn([_Met(*met) for _, others in shared for met in others])
        return {f"{name}/replaced": float(rows) for name, rows in sorted(collections.Counter(done).items())}

    def _learn(self, found: Sequence[_Met]) -> None:
        """Adds photos to those found unusable; of each one a line and an event, once."""
        for met in sorted(found):
            self._found[met.stream].setdefault(met.number, met.what)
            if (met.stream, met.number) not in self._noted:
                self._noted.add((met.stream, met.number))
                console.print(printable(f"{met.stream}: {met.what}: replaced by other photos"))
                history.note(self._workdir, EVENT, met.step, [met.stream, str(met.number), met.what])

    def _check(self) -> None:
        for name, found in self._found.items():
            if len(found) > 1 and len(found) / self._sizes[name] > self._most:
                raise TooManyUnusable(
                    f"stream {name!r}: {len(found):,} of its {self._sizes[name]:,} photos cannot be used "
                    f"({first_few(found.values(), _NAMED, '; ')}), more than data.most_replaced={self._most}: mend "
                    "them, or raise data.most_replaced"
                )


def replaced_facts(workdir: Path, metrics: Sequence[Mapping[str, Any]]) -> dict[str, str]:
    """What the report says of replaced photos, {} if there are none; `metrics`: the lines of metrics.jsonl."""
    rows: collections.Counter[str] = collections.Counter()
    for line in metrics:
        rows.update({k: int(v) for k, v in line.items() if line["kind"] == "data" and k.endswith("/replaced")})
    photos: dict[str, dict[int, str]] = collections.defaultdict(dict)
    for met in _events(workdir):
        photos[met.stream].setdefault(met.number, met.what)
    return {
        f"photos replaced in {name}": f"{rows[f'{name}/replaced']:,} times, as {len(found):,} cannot be used: "
        + printable(first_few(found.values(), _NAMED, "; "))
        for name, found in photos.items()
    }


def _events(workdir: Path) -> list[_Met]:
    """The replaced photos in the history of a run, since it began from its first step."""
    found: list[_Met] = []
    for line in history.read(workdir):
        if line["event"] == "started":
            found = []
        elif line["event"] == EVENT:
            try:
                stream, number, what = line["details"]
                found.append(_Met(int(line["step"]), str(stream), int(number), str(what)))
            except (TypeError, ValueError):  # as all that is spoilt in that file
                continue
    return found


def _still_unusable(streams: Mapping[str, Stream], met: _Met) -> bool:
    stream = streams.get(met.stream)
    if stream is None or not 0 <= met.number < len(stream.source):
        return False
    try:
        stream.row(met.number, np.random.default_rng(0))
    except DataError:
        return True
    return False
