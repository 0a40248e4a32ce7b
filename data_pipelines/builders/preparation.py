"""Writes a downloaded data set as a TFDS data set: in parallel, and going on where an interrupted run was.

Every piece of the builder becomes one shard. While the work goes on, the data set's folder is called
"<version>.preparing"; it gets its own name when all is done. Several hosts may write parts of the shards into it.
"""

from __future__ import annotations

import functools
import hashlib
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import tensorflow_datasets as tfds

from data_pipelines.builders import parts
from data_pipelines.builders.download_builder import DownloadBuilder, Piece
from data_pipelines.builders.parts import Part
from data_pipelines.builders.records import Tally
from data_pipelines.builders.shards import Shard, write_json, write_shards
from data_pipelines.picture_files import MAX_MEGAPIXELS
from larvseg_jax.console import console
from larvseg_jax.errors import UserError

_PREPARING = ".preparing"
_PLAN = "plan.json"


def prepare(
    builder_class: type[DownloadBuilder],
    root: Path,
    data_dir: Path,
    workers: int = 1,
    max_megapixels: int = MAX_MEGAPIXELS,
    part: Part | None = None,
) -> Path:
    """Prepares the data set in `root` and returns its folder, `data_dir`/<class list>/<version>.

    Args:
      builder_class: what reads the download.
      root: folder that holds the download.
      data_dir: folder of all prepared data sets.
      workers: processes that write; 1 works in this one.
      max_megapixels: photos and masks of more million pixels are left out, as unreadable ones are.
      part: only these shards are written, and the folder of the unfinished data set is returned; a call without a part
        makes the data set of them. None: all shards, unless parts were begun.

    Raises:
      UserError: `root` is no such data set, another one than the interrupted run had, `data_dir` cannot be
        written, a mask does not fit, or a part that was begun is missing. What is written is kept; the same call goes
        on from there.
    """
    make = functools.partial(builder_class.writing, data_dir, max_megapixels)
    builder = make()
    final = Path(builder.data_dir)
    if _is_prepared(final):
        return final
    if not root.is_dir():
        raise UserError(f"there is no folder {root}: give the one that holds the data set as it was downloaded")
    root = root.resolve()
    work = final.with_name(final.name + _PREPARING)
    layout, pieces = builder.layout(root), builder.pieces(root)
    for line in (layout, *builder.remarks(root)):
        console.print(f"{root}: {line}")
    if _is_prepared(final):  # by another host, while this one looked through the download
        return final
    try:
        work.mkdir(parents=True, exist_ok=True)
        with parts.in_use(work, part):
            with parts.planning(work):
                shards = _plan(builder, root, layout, pieces, work)
                parts.agree(work, part, shards)
            write_shards(make, part.shards(shards) if part else shards, workers)
            if part:
                parts.report(part, shards)
                return work
            tallies = _finish(builder, root, shards, work)
            work.rename(final)
    except OSError as error:
        raise UserError(
            f"cannot prepare {final} ({error}): make both folders accessible, free space or choose another --data_root"
        ) from error
    for file in (final / _PLAN, *(final / shard.summary.name for shard in shards)):
        file.unlink()
    parts.clear(final)
    _report(builder, final, tallies)
    return final


def _is_prepared(final: Path) -> bool:
    """Whether there is nothing to do, which is said."""
    found = (final / "dataset_info.json").is_file()
    if found:
        console.print(f"{final} is prepared already")
    return found


def _plan(
    builder: DownloadBuilder, root: Path, layout: str, pieces: dict[str, Sequence[Piece]], work: Path
) -> list[Shard]:
    """The shards to write, in order; UserError if an interrupted run planned other ones."""
    digest = hashlib.sha256()
    shards = []
    for split, split_pieces in pieces.items():
        template = tfds.core.ShardedFileTemplate(
            data_dir=work, dataset_name=builder.name, split=split, filetype_suffix="array_record"
        )
        if not split_pieces:
            raise UserError(f"{root}: {layout}, but no photo for the split {split!r}: complete the download")
        for i, piece in enumerate(split_pieces):
            digest.update(repr((split, piece)).encode())
            path = template.sharded_filepath(shard_index=i, num_shards=len(split_pieces))
            shards.append(Shard(split, piece, Path(path)))
    plan = {"root": str(root), "layout": layout, "shards": len(shards), "digest": digest.hexdigest()}
    plan["max_megapixels"] = builder.max_megapixels
    file = work / _PLAN
    if not file.exists():
        write_json(file, plan)
    before = json.loads(file.read_text())
    limit = before.setdefault("max_megapixels", MAX_MEGAPIXELS)
    if limit != builder.max_megapixels:
        raise UserError(f"{work} was begun with --max_megapixels={limit}: give the same, or delete {work}")
    if before != plan:
        what = "other files than it has now" if before["root"] == plan["root"] else "it"
        raise UserError(
            f"{work} was begun from {before['root']} ({before['layout']}, {before['shards']} shards) with {what}: "
            f"give --from={before['root']} as it was, or delete {work}"
        )
    return shards


def _finish(builder: DownloadBuilder, root: Path, shards: list[Shard], work: Path) -> dict[str, Tally]:
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
            reasons = [f"{photo['file']}: {photo['reason']}" for photo in tally.unreadable]
            raise UserError(
                f"{root}: no readable photo for the split {split!r} ({len(reasons)} unreadable"
                f"{f', the first: {reasons[0]}' if reasons else ''}): complete the download and delete {work}"
            )
    infos = [tfds.core.SplitInfo(name=s, shard_lengths=lengths[s], num_bytes=sizes[s]) for s in tallies]
    builder.info.set_splits(tfds.core.SplitDict(infos))
    builder.info.metadata.update(builder.metadata(root, tallies))
    builder.info.write_to_directory(str(work))
    return tallies


def _report(builder: DownloadBuilder, final: Path, tallies: dict[str, Tally]) -> None:
    """Says how many photos there are, and what is missing."""
    expected = builder.info.metadata["expected"]
    for split, tally in tallies.items():
        published = f" of {expected[split]:,} published" if split in expected else ""
        console.print(f"{final}, split {split}: {tally.photos:,} photos{published}")
        if tally.unreadable:
            first = tally.unreadable[0]
            console.print(
                f"{len(tally.unreadable):,} unreadable files left out, listed in {final / 'metadata.json'} under "
                f"unreadable/{split}; the first: {first['file']}: {first['reason']}",
            )
