"""Makes cached features: the photos of a run's streams and evaluations, through the blocks that do not move."""

from __future__ import annotations

import dataclasses
import functools
import itertools
import json
from collections.abc import Callable, Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any, cast

import grain
import jax
import numpy as np

from data_pipelines.feature_files import (
    DESCRIPTION,
    TOKENS,
    FeatureFacts,
    id_array,
    read_facts,
    records_of_a_shard,
    token_names,
    write_shard,
)
from data_pipelines.features import view_rng
from data_pipelines.replacing import row_or_another
from data_pipelines.rows import besides_pictures, extent_of
from data_pipelines.streams import HostBatch, Stream, iterate, stack
from larvseg_jax import assemble
from larvseg_jax.config import Experiment
from larvseg_jax.console import console, first_few, in_bytes, stage, track
from larvseg_jax.errors import UserError
from larvseg_jax.evaluation.evaluator import Evaluator
from larvseg_jax.evaluation.photos import photo_values, photos_of
from larvseg_jax.features.encoder import Encoder, TokenDtype
from larvseg_jax.models.frozen import frozen_blocks
from larvseg_jax.options import changes
from larvseg_jax.provenance import versions
from larvseg_jax.stored_features import (
    evaluation_folder,
    evaluation_options,
    model_options,
    stream_options,
    weights_below,
)
from larvseg_jax.training.lock import locked

Record = dict[str, np.ndarray]
RecordsOf = Callable[[np.ndarray], Iterator[Record]]
"""The numbers of some records, in order -> the records."""

_USUAL_WINDOWS = 2  # of a photo that is no square: for the size of shards


def make_features(
    run: Experiment, out: Path, views: int = 4, blocks: int | None = None, dtype: TokenDtype = "float16"
) -> None:
    """Writes the features of every stream of a run to `out`/<stream>, of every evaluation to `out`/evals.<name>.

    Goes on with the shards that are missing.

    Args:
      run: its streams and evaluations, its backbone, its `pretrained` weights.
      out: the folder.
      views: of each photo of a stream: crops and colours drawn by (seed, stream, photo, view) as the stream draws them.
      blocks: of the backbone that photos go through; None: all that are frozen.
      dtype: of the tokens.

    Raises:
      UserError: fewer blocks are frozen, a photo cannot be used (`data.on_error`), the folder holds other features or
        cannot be written, or a token is no number of that dtype.
    """
    blocks = _blocks(run, blocks)
    run = dataclasses.replace(run, features=None)  # it is pictures that are read
    with locked(out):
        with stage("weights"):
            mesh = assemble.mesh_of(run)
            encoder = Encoder(run, mesh, blocks, dtype)
            console.print(f"  {encoder.story}")
        with stage("features"):
            for name, stream in assemble.open_streams(run).items():
                facts = _facts(run, name, stream, encoder, views, blocks)
                size = in_bytes(facts.records * facts.record_bytes)
                records = functools.partial(_records, run, name, stream, facts, encoder)
                _write(name, out / name, facts, f"{facts.photos:,} photos x {views} views ({size})", records)
            for name, evaluator in assemble.make_evaluators(run, mesh).items():
                facts = _evaluation_facts(run, evaluator, encoder, blocks)
                records = functools.partial(_evaluation_records, evaluator, encoder, f"evaluation {name}")
                photos = f"the windows of {facts.photos:,} photos"
                _write(f"evaluation {name}", out / evaluation_folder(name), facts, photos, records)


def _blocks(run: Experiment, asked: int | None) -> int:
    frozen = frozen_blocks(run.vit, run.optimizer.frozen)
    if not frozen:
        raise UserError(
            f"optimizer.frozen={run.optimizer.frozen!r} freezes no block of the backbone from below, and features of "
            "one that learns would be wrong after a step: set it to '^backbone/'"
        )
    if asked is not None and asked > frozen:
        raise UserError(
            f"--blocks={asked}, but optimizer.frozen={run.optimizer.frozen!r} freezes the first {frozen} of "
            f"{run.vit.depth}: use {frozen} or less"
        )
    return frozen if asked is None else asked


def _facts(run: Experiment, name: str, stream: Stream, encoder: Encoder, views: int, blocks: int) -> FeatureFacts:
    arrays: dict[str, tuple[tuple[int, ...], str]] = {}
    specs = stream.view.spec()
    others = besides_pictures(specs)
    for array, spec in specs.items():
        if not spec.picture:
            arrays |= {array: (spec.shape, spec.dtype)} if array in others else {}
            continue
        layout = encoder.layout(spec.shape[-2])
        for token, of in zip(token_names(array), TOKENS, strict=True):
            shape, kind = layout[of]
            arrays[token] = (*spec.shape[:-3], *shape), kind
    return FeatureFacts(
        weights=weights_below(encoder.params, blocks),
        model=model_options(run),
        stream=stream_options(run, name),
        classes=stream.label_set.names,
        blocks=blocks,
        photos=len(stream.source),
        views=views,
        seed=run.seed,
        arrays=arrays,
        records_per_shard=records_of_a_shard(arrays),
        made=_made(run),
    )


def _write(name: str, folder: Path, facts: FeatureFacts, photos: str, records_of: RecordsOf) -> None:
    """The shards that are not there yet."""
    _begin(folder, facts)
    shards = facts.shards(folder)
    missing = [(path, records) for path, records in shards if not path.is_file()]
    written = f"; {len(shards) - len(missing)} of {len(shards)} shards are there" if len(missing) < len(shards) else ""
    console.print(f"  {name}: {photos} after {facts.blocks} blocks{written}")
    if not missing:
        return
    records = records_of(np.concatenate([np.asarray(records) for _, records in missing]))
    for path, wanted in missing:
        write_shard(path, itertools.islice(records, len(wanted)))


def _begin(folder: Path, facts: FeatureFacts) -> None:
    """Writes what the features are going to be; UserError if there are others in the folder."""
    file = folder / DESCRIPTION
    if file.exists():
        before = read_facts(folder)
        if before != facts:
            old, new = (json.loads(json.dumps(dataclasses.asdict(f) | {"made": {}})) for f in (before, facts))
            raise UserError(
                f"{folder} holds other features ({first_few(changes(old, new), 4, '; ')}): give another --out, or "
                "delete it"
            )
        return
    facts.write(folder)


def _batches(
    run: Experiment, name: str, stream: Stream, facts: FeatureFacts, numbers: np.ndarray, size: int
) -> Iterator[HostBatch]:
    """The views of the records with these numbers, in order, decoded by threads."""
    draw = functools.partial(row_or_another, stream.row, facts.photos) if run.data.on_error == "replace" else stream.row

    def row(number: Any) -> dict[str, Any]:
        photo, view = divmod(int(number), facts.views)
        found = draw(photo, view_rng(facts.seed, name, photo, view))
        return {key: value for key, value in found.items() if key != "unusable"}

    dataset = grain.MapDataset.source(numbers).map(row).batch(size, drop_remainder=False, batch_fn=stack)
    return cast(Iterator[HostBatch], iterate(dataset, 0, run.data_threads))


def _records(
    run: Experiment, name: str, stream: Stream, facts: FeatureFacts, encoder: Encoder, numbers: np.ndarray
) -> Iterator[Record]:
    """The records of a stream with these numbers; while the host writes those of one batch, the device has the next."""
    batches = _batches(run, name, stream, facts, numbers, encoder.size)
    tracked = track(batches, -(-len(numbers) // encoder.size), name)
    specs = stream.view.spec()
    pictures, others = [array for array, spec in specs.items() if spec.picture], besides_pictures(specs)
    for batch, begun in _one_ahead((batch, _begun(encoder, batch, pictures)) for batch in tracked):
        found = _tokens(batch, begun)
        for i, photo in enumerate(batch["id"]):
            labels = {k: batch[k][i] for k in others}
            yield _record(str(photo), {k: x[i] for k, x in found.items()}) | labels


def _begun(encoder: Encoder, batch: HostBatch, pictures: list[str]) -> dict[str, list[dict[str, jax.Array]]]:
    """What the encoder makes of all pictures of a batch, those of a row one after the other; not waited for."""
    begun = {}
    for name in pictures:
        flat, extent = batch[name].reshape(-1, *batch[name].shape[-3:]), batch.get(extent_of(name))
        parts = [slice(i, i + encoder.size) for i in range(0, len(flat), encoder.size)]
        begun[name] = [encoder(flat[part], None if extent is None else extent[part]) for part in parts]
    return begun


def _tokens(batch: HostBatch, begun: Mapping[str, list[dict[str, jax.Array]]]) -> Record:
    """The tokens of a batch, by the names they have in records."""
    found = {}
    for name, parts in begun.items():
        rows = batch[name].shape[:-3]
        for token, of in zip(token_names(name), TOKENS, strict=True):
            flat = np.concatenate([np.asarray(part[of]) for part in parts])[: int(np.prod(rows))]
            found[token] = flat.reshape(*rows, *flat.shape[1:])
    return found


def _evaluation_facts(run: Experiment, evaluator: Evaluator, encoder: Encoder, blocks: int) -> FeatureFacts:
    config = evaluator.config
    arrays = encoder.layout(config.window)
    return FeatureFacts(
        weights=weights_below(encoder.params, blocks),
        model=model_options(run),
        stream=evaluation_options(config),
        classes=(),
        blocks=blocks,
        photos=evaluator.photos,
        views=1,
        seed=0,  # nothing is drawn
        arrays=arrays,
        records_per_shard=max(1, records_of_a_shard(arrays) // _USUAL_WINDOWS),
        made=_made(run),
    )


def _evaluation_records(evaluator: Evaluator, encoder: Encoder, name: str, numbers: np.ndarray) -> Iterator[Record]:
    """The records of the photos of an evaluation with these numbers, each with all its windows."""
    photos = photos_of(evaluator.source, [int(number) for number in numbers], evaluator.config)
    for photo, tokens in photo_values(encoder, iter(track(photos, len(numbers), name)), encoder.size):
        yield _record(photo.id, tokens)


def _record(photo: str, tokens: Mapping[str, np.ndarray]) -> Record:
    """UserError if tokens are not finite."""
    for x in tokens.values():
        if not np.isfinite(x).all():
            raise UserError(
                f"photo {photo}: its tokens are no numbers of {x.dtype} (too large, or the weights are damaged): use "
                "weights of another size"
            )
    return {"id": id_array(photo), **tokens}


def _made(run: Experiment) -> dict[str, Any]:
    return {"weights": run.pretrained or "from scratch", "dtype": run.vit.dtype, "versions": versions()}


def _one_ahead(items: Iterable[Any]) -> Iterator[Any]:
    """The items, each given when the one after it has been begun."""
    pending: list[Any] = []
    for item in items:
        pending.append(item)
        if len(pending) == 2:
            yield pending.pop(0)
    yield from pending
