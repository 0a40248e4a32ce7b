"""A training step's time, predicted from published peaks: an estimate before there is a machine, never a result."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable, Mapping

from larvseg_jax.compile_check.program import Collective
from larvseg_jax.compile_check.target import Target
from larvseg_jax.devices.peaks import Chip
from larvseg_jax.models.flops import BACKBONE


@dataclasses.dataclass(frozen=True)
class StepTime:
    """Seconds that a chip would need for each of three things, at the peak that its data sheet has.

    Attributes:
      compute: matrix products, those of the class head in three passes; None: unknown, and in none of the sums.
      memory: reading and writing HBM.
      network: sending in rings along mesh axes; without the latency of each exchange.
    """

    compute: float | None
    memory: float
    network: float

    @property
    def known(self) -> dict[str, float]:
        """Those that are known, by name."""
        return {name: seconds for name, seconds in dataclasses.asdict(self).items() if seconds is not None}

    @property
    def bound(self) -> str:
        """What takes longest."""
        return max(self.known, key=self.known.__getitem__)

    @property
    def least(self) -> float:
        """If everything overlapped."""
        return max(self.known.values())

    @property
    def without_overlap(self) -> float:
        """If nothing overlapped."""
        return sum(self.known.values())


def predicted_time(
    flops: Mapping[str, float | int], dtype: str, target: Target, hbm_bytes: float, sent: Iterable[Collective]
) -> StepTime:
    """The time of a step from one chip's FLOPs by formula ({}: unknown), its HBM traffic and what chips send."""
    compute = compute_seconds(flops, dtype, target.chip) if flops else None
    network = sum(exchange.sent for exchange in sent) / target.ring_bandwidth
    return StepTime(compute, hbm_bytes / target.chip.memory_bandwidth, network)


def compute_seconds(flops: Mapping[str, float | int], dtype: str, chip: Chip) -> float:
    """Time at the chip's peak of FLOPs by part (`Method.flops`): the backbone in `dtype`, all else in three passes."""
    backbone = sum(flops.get(part, 0) for part in BACKBONE if part != "position_embedding")
    return backbone / chip.flops[dtype] + (sum(flops.values()) - backbone) / chip.precise_flops
