"""Writes a downloaded data set as a TFDS data set: in parallel, and going on where an interrupted run was.

Every piece of the builder becomes one shard. While the work goes on the data set's folder is called
"<version>.preparing"; a shard is written to a temporary file that is renamed when it is complete, then a JSON
file beside it says what it holds. The folder gets its own name when all is done.
"""

from __future__ import annotations

import contextlib
import dataclasses
import fcntl
import hashlib
import json
import multiprocessing
import os
import signal
import threading
from collections.abc import Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor, as_completed
from concurrent.futures.process import BrokenProcessPool
from pathlib import Path
from typing import Any

import tensorflow_datasets as tfds
from tensorflow_datasets.core.file_adapters import ArrayRecordFileAdapter

from data_pipelines.builders.layout import LayoutBuilder, Piece
from data_pipelines.builders.records import Tally
from larvseg_jax.errors import UserError
from larvseg_jax.progress import console, track

_PREPARING = ".preparing"
_PLAN = "plan.json"


@dataclasses.dataclass(frozen=True)
class _Shard:
    """One piece and the file it becomes."""

    split: str
    piece: Piece
    path: Path

    @property
    def summary(self) -> Path:
        return self.path.with_name(self.path.name + ".json")


def prepare(builder: type[LayoutBuilder], root: Path, data_dir: Path, workers: int = 1) -> Path:
    """Prepares the data set in `root` and returns its folder, `data_dir`/<class list>/<version>.

    Args:
      builder: what reads the download.
      root: folder that holds the download.
      data_dir: folder of all prepared data sets.
      workers: processes that write; 1 works in this one.

    Raises:
      UserError: `root` is no such data set, another one than the interrupted run had, `data_dir` cannot be
        written, or a mask does not fit. What is written is kept; the same call goes on from there.
    """
    made = builder(data_dir=str(data_dir), file_format="array_record")
    final = Path(made.data_dir)
    if (final / "dataset_info.json").is_file():
        console.print(f"{final} is prepared already", markup=False)
        return final
    if not root.is_dir():
        raise UserError(f"there is no folder {root}: give the one that holds the data set as it was downloaded")
    root = root.resolve()
    work = final.with_name(final.name + _PREPARING)
    layout, pieces = made.layout(root), made.pieces(root)
    for line in (layout, *made.remarks(root)):
        console.print(f"{root}: {line}", markup=False)
    try:
        work.mkdir(parents=True, exist_ok=True)
        with _alone(work):
            shards = _plan(made, root, layout, pieces, work)
            _write_all(builder, data_dir, shards, workers)
            tallies = _finish(made, root, shards, work)
            work.rename(final)
    except OSError as error:
        raise UserError(
            f"cannot prepare {final} ({error}): make both folders accessible, free space or choose another --data_dir"
        ) from error
    for shard in shards:
        (final / shard.summary.name).unlink()
    (final / _PLAN).unlink()
    _report(made, final, tallies)
    return final


@contextlib.contextmanager
def _alone(work: Path) -> Iterator[None]:
    """Keeps a second run out of the folder while this one lives, however it ends."""
    folder = os.open(work, os.O_RDONLY)
    try:
        fcntl.flock(folder, fcntl.LOCK_EX | fcntl.LOCK_NB)
        yield
    except BlockingIOError:
        raise UserError(f"{work} is being written by another run: wait for it, or stop it") from None
    finally:
        os.close(folder)


def _plan(
    builder: LayoutBuilder, root: Path, layout: str, pieces: dict[str, Sequence[Piece]], work: Path
) -> list[_Shard]:
    """The shards to be, in order; UserError if an interrupted run planned other ones."""
    digest = hashlib.sha256()
    shards = []
    for split, units in pieces.items():
        template = tfds.core.ShardedFileTemplate(
            data_dir=work, dataset_name=builder.name, split=split, filetype_suffix="array_record"
        )
        if not units:
            raise UserError(f"{root}: {layout}, but no photo for the split {split!r}: complete the download")
        for i, piece in enumerate(units):
            digest.update(repr((split, piece)).encode())
            path = template.sharded_filepath(shard_index=i, num_shards=len(units))
            shards.append(_Shard(split, piece, Path(path)))
    plan = {"root": str(root), "layout": layout, "shards": len(shards), "digest": digest.hexdigest()}
    file = work / _PLAN
    if not file.exists():
        _write_json(file, plan)
    before = json.loads(file.read_text())
    if before != plan:
        what = "other files than it has now" if before["root"] == plan["root"] else "it"
        raise UserError(
            f"{work} was begun from {before['root']} ({before['layout']}, {before['shards']} shards) with {what}: "
            f"give --from={before['root']} as it was, or delete {work}"
        )
    return shards


def _is_written(shard: _Shard) -> bool:
    try:
        return json.loads(shard.summary.read_text())["file_bytes"] == shard.path.stat().st_size
    except FileNotFoundError:
        return False


def _write_all(builder: type[LayoutBuilder], data_dir: Path, shards: list[_Shard], workers: int) -> None:
    """Writes the shards that are not there yet."""
    left = [shard for shard in shards if not _is_written(shard)]
    if len(left) < len(shards):
        console.print(f"{len(shards) - len(left)} of {len(shards)} shards are written already")
    if not left:
        return
    name = f"{builder.name}: shards"
    workers = min(workers, len(left))
    if workers == 1:
        made = builder(data_dir=str(data_dir), file_format="array_record")
        for shard in track(left, len(left), name):
            _write(made, shard)
        return
    with ProcessPoolExecutor(
        workers, multiprocessing.get_context("spawn"), _begin_worker, (builder, str(data_dir))
    ) as pool:
        futures = [pool.submit(_work, shard) for shard in left]
        try:
            for future in track(as_completed(futures), len(left), name):
                future.result()
        except BrokenProcessPool as error:
            raise UserError(
                "a worker process died (out of memory?): the same command goes on; try it with fewer --workers"
            ) from error
        finally:
            pool.shutdown(wait=True, cancel_futures=True)


_builder: LayoutBuilder  # of a worker process


def _begin_worker(builder: type[LayoutBuilder], data_dir: str) -> None:
    global _builder
    signal.signal(signal.SIGINT, signal.SIG_DFL)  # Ctrl-C ends it without a traceback
    parent = multiprocessing.parent_process()
    assert parent is not None

    def end_with_parent() -> None:  # which may have been killed without a chance to say so
        parent.join()
        os._exit(1)

    threading.Thread(target=end_with_parent, daemon=True).start()
    _builder = builder(data_dir=data_dir, file_format="array_record")


def _work(shard: _Shard) -> None:
    _write(_builder, shard)


def _write(builder: LayoutBuilder, shard: _Shard) -> None:
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
    _write_json(shard.summary, {"file_bytes": file_bytes, "record_bytes": record_bytes, **vars(tally)})


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    """Hides what the picture libraries write to stderr of each odd file; Python's errors are raised, not printed."""
    saved, nowhere = os.dup(2), os.open(os.devnull, os.O_WRONLY)
    os.dup2(nowhere, 2)
    try:
        yield
    finally:
        os.dup2(saved, 2)
        os.close(saved)
        os.close(nowhere)


def _finish(builder: LayoutBuilder, root: Path, shards: list[_Shard], work: Path) -> dict[str, Tally]:
    """Writes the files by which TFDS knows the data set; returns what was seen in each split."""
    splits = dict.fromkeys(shard.split for shard in shards)
    tallies = {split: Tally() for split in splits}
    lengths: dict[str, list[int]] = {split: [] for split in splits}
    sizes = dict.fromkeys(splits, 0)
    for shard in shards:
        summary: dict[str, Any] = json.loads(shard.summary.read_text())
        tally = tallies[shard.split]
        tally.photos += summary["photos"]
        tally.classes.update({int(i): n for i, n in summary["classes"].items()})
        tally.unreadable += summary["unreadable"]
        lengths[shard.split].append(summary["photos"])
        sizes[shard.split] += summary["record_bytes"]
    for split, tally in tallies.items():
        if not tally.photos:
            found = [f"{photo['file']}: {photo['reason']}" for photo in tally.unreadable]
            raise UserError(
                f"{root}: no readable photo for the split {split!r} ({len(found)} unreadable"
                f"{f', the first: {found[0]}' if found else ''}): complete the download and delete {work}"
            )
    infos = [tfds.core.SplitInfo(name=s, shard_lengths=lengths[s], num_bytes=sizes[s]) for s in tallies]
    builder.info.set_splits(tfds.core.SplitDict(infos))
    builder.info.metadata.update(builder.metadata(root, tallies))
    builder.info.write_to_directory(str(work))
    return tallies


def _report(builder: LayoutBuilder, final: Path, tallies: dict[str, Tally]) -> None:
    """Says how many photos there are, and what is missing."""
    expected = builder.info.metadata["expected"]
    for split, tally in tallies.items():
        published = expected.get(split)
        of = "" if published is None else f" of {published:,} published"
        console.print(f"{final}, split {split}: {tally.photos:,} photos{of}", markup=False)
        if tally.unreadable:
            first = tally.unreadable[0]
            console.print(
                f"{len(tally.unreadable):,} unreadable files left out, listed in {final / 'metadata.json'} under "
                f"unreadable/{split}; the first: {first['file']}: {first['reason']}",
                markup=False,
            )


def _write_json(file: Path, content: dict[str, Any]) -> None:
    """Whole or not at all, should the process be killed."""
    new = file.with_name(file.name + ".incomplete")
    new.write_text(json.dumps(content))
    new.replace(file)
