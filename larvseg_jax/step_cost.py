"""A training step's time, predicted from published peaks: an estimate before there is a machine, never a result."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable, Mapping

from jax.sharding import Mesh

from larvseg_jax import data
from larvseg_jax.compile_target import Chip, Target
from larvseg_jax.compiled_program import Collective
from larvseg_jax.config import Experiment
from larvseg_jax.flops import BACKBONE, step_flops, stream_sizes
from larvseg_jax.sharding import padded_batch_size


@dataclasses.dataclass(frozen=True)
class StepTime:
    """Seconds that a chip would need for each of three things, at the peak that its data sheet has.

    Attributes:
      compute: matrix products, those of the class head in full float32.
      memory: reading and writing HBM.
      network: sending in rings along mesh axes; without the latency of each exchange.
    """

    compute: float
    memory: float
    network: float

    @property
    def bound(self) -> str:
        """What takes longest."""
        times = dataclasses.asdict(self)
        return max(times, key=times.__getitem__)

    @property
    def least(self) -> float:
        """If everything overlapped."""
        return max(self.compute, self.memory, self.network)

    @property
    def without_overlap(self) -> float:
        return self.compute + self.memory + self.network


def predict(run: Experiment, mesh: Mesh, target: Target, hbm_bytes: float, sent: Iterable[Collective]) -> StepTime:
    """The time of a step from its FLOPs by formula, its HBM traffic and what its chips send."""
    flops = chip_flops(run, mesh)
    network = sum(exchange.sent for exchange in sent) / target.ring_bandwidth
    compute = compute_seconds(flops, run.vit.dtype, target.chip)
    return StepTime(compute, hbm_bytes / target.chip.memory_bandwidth, network)


def compute_seconds(flops: Mapping[str, float | int], dtype: str, chip: Chip) -> float:
    """Time at the chip's peak of FLOPs by part (flops.py): the backbone in `dtype`, all else in full float32."""
    share = 1.0 if dtype == "bfloat16" else chip.tf32_share
    backbone = sum(flops[part] for part in BACKBONE if part != "position_embedding")
    return (backbone / share + (sum(flops.values()) - backbone) / chip.float32_share) / chip.flops


def chip_flops(run: Experiment, mesh: Mesh) -> dict[str, int]:
    """FLOPs that one chip does in a step, by part: those of its own pictures and its own classes.

    Chips along `model` have the same pictures, so each does their backbone; those along `data` have the same
    classes, so each makes their table.
    """
    columns = {loss.name: len(loss.label_set) for loss in data.stream_losses(run, mesh)}
    pictures, classes = mesh.shape["data"], mesh.shape["model"]
    own = []
    for (name, stream), sizes in zip(run.streams.items(), stream_sizes(run), strict=True):
        batch = padded_batch_size(name, stream.batch_size, mesh, run.batch_padding)
        own.append(dataclasses.replace(sizes, images=batch // pictures, classes=-(-columns[name] // classes)))
    return step_flops(run.vit, own)
