"""Batches on the devices: host batches placed on the mesh, and the shapes that a step is compiled for."""

from __future__ import annotations

from collections.abc import Mapping

import jax
import numpy as np
from jax.sharding import Mesh

from data_pipelines.rows import ArraySpec
from data_pipelines.streams import StreamConfig
from larvseg_jax.devices.mesh import batch_sharding, padded_batch_size

HostBatches = Mapping[str, Mapping[str, np.ndarray]]
"""Stream -> array -> values, as they come from data_pipelines.streams."""


class BatchPlacer:
    """Puts host batches on the devices, filled up with rows that are no example where the mesh asks for it."""

    def __init__(self, streams: Mapping[str, StreamConfig], mesh: Mesh, padding: str) -> None:
        self._sharding = batch_sharding(mesh)
        self._specs = {name: stream.spec for name, stream in streams.items()}
        self._sizes = {
            name: padded_batch_size(name, stream.batch_size, mesh, padding) for name, stream in streams.items()
        }

    def __call__(self, batches: HostBatches) -> dict[str, dict[str, jax.Array]]:
        """Everything but the photos' ids, which stay on the host."""
        return {
            stream: {
                name: self._put(arrays[name], spec, self._sizes[stream]) for name, spec in self._specs[stream].items()
            }
            for stream, arrays in batches.items()
        }

    def _put(self, array: np.ndarray, spec: ArraySpec, size: int) -> jax.Array:
        missing = size // jax.process_count() - len(array)
        if missing:
            array = np.concatenate([array, np.full((missing, *array.shape[1:]), spec.fill, array.dtype)])
        with jax.transfer_guard_host_to_device("allow"):  # the one transfer of the loop that is meant
            return jax.make_array_from_process_local_data(self._sharding, array)


def abstract_batch(
    streams: Mapping[str, StreamConfig], mesh: Mesh, padding: str
) -> dict[str, dict[str, jax.ShapeDtypeStruct]]:
    """Shapes, dtypes and shardings of the batches that `BatchPlacer` makes."""
    batch = {}
    for name, stream in streams.items():
        size = padded_batch_size(name, stream.batch_size, mesh, padding)
        batch[name] = {
            array: jax.ShapeDtypeStruct((size, *spec.shape), spec.dtype, sharding=batch_sharding(mesh))
            for array, spec in stream.spec.items()
        }
    return batch
