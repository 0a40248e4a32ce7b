"""From the config's description of data to open streams."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import jax
import numpy as np
from jax.sharding import Mesh

from data_pipelines.examples import Source
from data_pipelines.sources import open_source
from data_pipelines.streams import Stream
from larvseg_jax.config import Experiment, StreamConfig
from larvseg_jax.errors import UserError
from larvseg_jax.models.segmenter import padded_classes
from larvseg_jax.sharding import batch_sharding, padded_batch_size
from larvseg_jax.train_step import StreamLoss
from larvseg_jax.vocabulary import LabelSet


def open_streams(run: Experiment) -> dict[str, Stream]:
    """Opens and checks the source of every stream of a run."""
    return {name: _open_stream(run, stream) for name, stream in run.streams.items()}


def _open_stream(run: Experiment, stream: StreamConfig) -> Stream:
    label_set = run.label_set(stream)
    needs_masks = stream.kind == "masks" or stream.tags_from == "crop"
    return Stream(
        source=open_source(stream.source, run.data_root, label_set, masks=needs_masks, tags=not needs_masks),
        label_set=label_set,
        kind=stream.kind,
        batch_size=stream.batch_size,
        crop_size=stream.crop_size,
        scale=stream.scale,
        ratio_range=stream.ratio_range,
        category_ratio=stream.category_ratio,
        max_labels=stream.max_labels,
        always_tags=_columns(label_set, stream.always_tags),
        tags_from=stream.tags_from,
        downsample_rate=run.downsample_rate,
    )


def _columns(label_set: LabelSet, always_tags: tuple[str, ...]) -> tuple[int, ...]:
    unknown = [name for name in always_tags if name not in label_set.members]
    if unknown:
        raise UserError(f"always_tags has {unknown[0]!r}, which is not among the stream's classes: add it to them")
    return tuple(label_set.column(name) for name in always_tags)


def open_eval_source(run: Experiment) -> tuple[Source, LabelSet]:
    """The evaluation photos with their masks, and the classes that compete."""
    label_set = run.label_set(run.eval)
    return open_source(run.eval.source, run.data_root, label_set, masks=True, tags=False), label_set


def stream_losses(run: Experiment, mesh: Mesh) -> tuple[StreamLoss, ...]:
    """What each stream adds to the loss."""
    layouts = {name: _columns_on(mesh, run.label_set(stream), run) for name, stream in run.streams.items()}
    return tuple(
        StreamLoss(
            name=name,
            kind=stream.kind,
            label_set=layouts[name][0],
            label_columns=layouts[name][1],
            sample_classes=stream.sample_classes,
            weight=stream.weight,
            lambda_cls=stream.lambda_cls,
            lambda_aux=stream.lambda_aux,
            loss_size=stream.crop_size // run.downsample_rate,
        )
        for name, stream in run.streams.items()
    )


def _columns_on(mesh: Mesh, label_set: LabelSet, run: Experiment) -> tuple[LabelSet, np.ndarray | None]:
    """The columns a stream's logits have on a mesh, and the column of each label where these differ.

    The embeddings of a few classes are fetched from wherever they are, and the columns filled up so that `model`
    divides them. Where classes are split, a stream that knows half of the vocabulary or more has a column for every
    row instead, so that each is computed where its embedding is; those it does not know take part in nothing.
    """
    shards, rows = mesh.shape["model"], padded_classes(len(run.vocabulary.classes), mesh)
    most = 2 * len(label_set) >= len(run.vocabulary.classes)
    if shards > 1 and most and len(set(label_set.rows.tolist())) == len(label_set):
        return label_set.spread(rows), label_set.rows
    return label_set.padded(shards), None


def data_settings(run: Experiment, streams: Mapping[str, Stream]) -> dict[str, Any]:
    """What the batch of step i is a function of: a run may only be resumed with the same."""
    facts: dict[str, Any] = {"seed": run.seed, "total_steps": run.total_steps, "downsample_rate": run.downsample_rate}
    for name, stream in streams.items():
        facts[f"streams.{name}"] = {**run.settings["streams"][name], "pictures": len(stream.source)}
        for weight in ("weight", "lambda_cls", "lambda_aux"):
            facts[f"streams.{name}"].pop(weight)
    return facts


class BatchPlacer:
    """Puts host batches on the devices, filled up with masked examples where the mesh asks for it."""

    def __init__(self, run: Experiment, mesh: Mesh) -> None:
        self._sharding = batch_sharding(mesh)
        self._sizes = {
            name: padded_batch_size(name, stream.batch_size, mesh, run.batch_padding)
            for name, stream in run.streams.items()
        }

    def __call__(self, batch: Mapping[str, Mapping[str, np.ndarray]]) -> dict[str, dict[str, jax.Array]]:
        """Everything but the photos' ids, which stay on the host."""
        return {
            stream: {name: self._put(array, self._sizes[stream]) for name, array in arrays.items() if name != "id"}
            for stream, arrays in batch.items()
        }

    def _put(self, array: np.ndarray, size: int) -> jax.Array:
        missing = size // jax.process_count() - len(array)
        if missing:
            # -1 is "no label", 0 is the mean colour, False is "not an example".
            filler = np.full((missing, *array.shape[1:]), -1 if array.dtype == np.int32 else 0, array.dtype)
            array = np.concatenate([array, filler])
        return jax.make_array_from_process_local_data(self._sharding, array)


def abstract_batch(run: Experiment, mesh: Mesh) -> dict[str, dict[str, jax.ShapeDtypeStruct]]:
    """Shapes, dtypes and shardings of the batches that `BatchPlacer` makes."""

    def leaf(*shape: int, dtype: str) -> jax.ShapeDtypeStruct:
        return jax.ShapeDtypeStruct(shape, dtype, sharding=batch_sharding(mesh))

    batch = {}
    for name, stream in run.streams.items():
        b = padded_batch_size(name, stream.batch_size, mesh, run.batch_padding)
        side = stream.crop_size // run.downsample_rate
        labels = (
            leaf(b, side, side, dtype="int32") if stream.kind == "masks" else leaf(b, stream.max_labels, dtype="int32")
        )
        batch[name] = {
            "image": leaf(b, stream.crop_size, stream.crop_size, 3, dtype="float32"),
            "valid": leaf(b, dtype="bool"),
            "label" if stream.kind == "masks" else "tags": labels,
        }
    return batch
