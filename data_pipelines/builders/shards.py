"""Writes shards: in several processes, each whole or not at all.

A shard is written to a temporary file that is renamed when it is complete; then a JSON file beside it, its summary,
says what it holds.
"""

from __future__ import annotations

import contextlib
import dataclasses
import json
import multiprocessing
import os
import signal
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ProcessPoolExecutor, as_completed
from concurrent.futures.process import BrokenProcessPool
from pathlib import Path
from typing import Any

import tensorflow_datasets as tfds
from tensorflow_datasets.core.file_adapters import ArrayRecordFileAdapter

from data_pipelines.builders.download_builder import DownloadBuilder, Piece
from data_pipelines.builders.records import Tally
from larvseg_jax.console import console, track
from larvseg_jax.errors import UserError


@dataclasses.dataclass(frozen=True)
class Shard:
    """One piece and the file it becomes."""

    split: str
    piece: Piece
    path: Path

    @property
    def summary(self) -> Path:
        """The file that says what the shard holds; there is none before the shard is complete."""
        return self.path.with_name(self.path.name + ".json")


def write_shards(make: Callable[[], DownloadBuilder], shards: list[Shard], workers: int) -> None:
    """Writes the shards that are not there yet. `make` makes the builder, in every process anew."""
    remaining = [shard for shard in shards if not is_written(shard)]
    if len(remaining) < len(shards):
        console.print(f"{len(shards) - len(remaining)} of {len(shards)} shards are written already")
    if not remaining:
        return
    builder = make()
    name = f"{builder.name}: shards"
    workers = min(workers, len(remaining))
    if workers == 1:
        for shard in track(remaining, len(remaining), name):
            _write(builder, shard)
        return
    with ProcessPoolExecutor(workers, multiprocessing.get_context("spawn"), _begin_worker, (make,)) as pool:
        futures = [pool.submit(_write_in_worker, shard) for shard in remaining]
        try:
            for future in track(as_completed(futures), len(remaining), name):
                future.result()
        except BrokenProcessPool as error:
            raise UserError(
                "a worker process died (out of memory?): the same command goes on; try it with fewer --workers"
            ) from error
        finally:
            pool.shutdown(wait=True, cancel_futures=True)


_builder: DownloadBuilder  # of a worker process


def _begin_worker(make: Callable[[], DownloadBuilder]) -> None:
    global _builder
    signal.signal(signal.SIGINT, signal.SIG_DFL)  # Ctrl-C ends it without a traceback
    parent = multiprocessing.parent_process()
    assert parent is not None

    def end_with_parent() -> None:  # which may have been killed without a chance to say so
        parent.join()
        os._exit(1)

    threading.Thread(target=end_with_parent, daemon=True).start()
    _builder = make()


def _write_in_worker(shard: Shard) -> None:
    _write(_builder, shard)


def _write(builder: DownloadBuilder, shard: Shard) -> None:
    """Writes one shard and the summary beside it."""
    features = builder.info.features
    serializer = tfds.core.ExampleSerializer(features.get_serialized_info())
    tally = Tally()
    record_bytes = 0

    def records() -> Iterator[tuple[int, bytes]]:
        nonlocal record_bytes
        for record in builder.records(shard.piece, tally):
            # TFDS's own call, with the order of the features the same in every process.
            message = serializer.get_tf_example(features.encode_example(record))
            serialized = message.SerializeToString(deterministic=True)
            record_bytes += len(serialized)
            yield tally.photos, serialized

    file = shard.path.with_name(shard.path.name + ".incomplete")
    with _quiet():
        try:
            tfds.core.ExampleWriter(builder.info.file_format).write(str(file), records())
            stored = ArrayRecordFileAdapter.num_examples(str(file))
        except RuntimeError as error:  # of ArrayRecord
            raise OSError(f"{file.name}: {error}") from error
    if stored != tally.photos:
        raise OSError(f"{file.name}: {tally.photos} records written, {stored} found")
    file_bytes = file.stat().st_size
    file.replace(shard.path)
    write_json(shard.summary, {"file_bytes": file_bytes, "record_bytes": record_bytes, **vars(tally)})


def is_written(shard: Shard) -> bool:
    """Whether the shard is there, whole, with its summary."""
    try:
        return json.loads(shard.summary.read_text())["file_bytes"] == shard.path.stat().st_size
    except (FileNotFoundError, ValueError, KeyError, TypeError):  # ValueError: the host lost power while it wrote
        return False


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    """Hides what the picture libraries write to stderr about odd files; Python's errors are raised, not printed."""
    stderr, nowhere = os.dup(2), os.open(os.devnull, os.O_WRONLY)
    os.dup2(nowhere, 2)
    try:
        yield
    finally:
        os.dup2(stderr, 2)
        os.close(stderr)
        os.close(nowhere)


def write_json(file: Path, content: dict[str, Any]) -> None:
    """Writes a JSON file whole or not at all, should the process be killed."""
    new = file.with_name(file.name + ".incomplete")
    new.write_text(json.dumps(content))
    new.replace(file)
