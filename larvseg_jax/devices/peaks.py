"""Accelerators as their makers' data sheets have them: one table for the MFU and for predicted step times."""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Mapping

from larvseg_jax.console import GIB


@dataclasses.dataclass(frozen=True)
class Accelerator:
    """One device.

    Attributes:
      device_kind: regular expression of its whole name in JAX (`jax.Device.device_kind`).
      flops: dense FLOP/s of a matrix product, by the dtype of its operands, at JAX's default precision: a float32
        product is TF32 on NVIDIA since the A100 and one pass of bfloat16 on a TPU. A dtype that is missing is not
        published.
      source: where the numbers are published.
    """

    device_kind: str
    flops: Mapping[str, float]
    source: str


@dataclasses.dataclass(frozen=True)
class Chip(Accelerator):
    """An accelerator that a step can be compiled for without having it (compile_check).

    Attributes:
      memory: HBM, bytes.
      memory_bandwidth: of HBM, bytes/s.
      ring_bandwidth: bytes/s that a chip sends in a ring of chips, both ways together.
      wraps: a TPU slice has wrap-around links along an axis of a multiple of so many chips; without them a ring is
        half as fast. 0: every chip reaches every other one at full speed (NVSwitch).
    """

    memory: int
    memory_bandwidth: float
    ring_bandwidth: float
    wraps: int

    @property
    def precise_flops(self) -> float:
        """FLOP/s of a product in three bfloat16 passes (models/precision.py)."""
        return self.flops["bfloat16"] / 3


def _tpu(device_kind: str, peak: float, source: str, *, gib: int, bandwidth: float, ring: float, wraps: int) -> Chip:
    flops = {"bfloat16": peak, "float32": peak}
    return Chip(device_kind, flops, source, gib * GIB, bandwidth, ring, wraps)


_HOPPER = {"bfloat16": 989.4e12, "float32": 494.7e12}

# Rings of TPUs: a chip's published bidirectional bandwidth over its number of ports (4 on a plane, 6 in space) is that
# of one link both ways, which is what a ring along one axis sends: half of it to either neighbour.
CHIPS: dict[str, Chip] = {
    "v4": _tpu(
        r"TPU v4", 275e12, "docs.cloud.google.com/tpu/docs/v4; arXiv:2304.01433",
        gib=32, bandwidth=1.2e12, ring=100e9, wraps=4,
    ),
    "v5e": _tpu(
        r"TPU v5 lite|TPU v5e", 197e12, "docs.cloud.google.com/tpu/docs/v5e",
        gib=16, bandwidth=819e9, ring=400e9 / 4, wraps=16,
    ),
    "v5p": _tpu(
        r"TPU v5|TPU v5p", 459e12, "docs.cloud.google.com/tpu/docs/v5p",
        gib=95, bandwidth=2765e9, ring=1200e9 / 6, wraps=4,
    ),
    "v6e": _tpu(
        r"TPU v6 lite|TPU v6e", 918e12, "docs.cloud.google.com/tpu/docs/v6e",
        gib=32, bandwidth=1600e9, ring=800e9 / 4, wraps=16,
    ),
    # Of a chip's two devices, half a chip each; a ring passes from the one to the other inside the chip, faster.
    "tpu7x": _tpu(
        r"TPU7x", 2307e12 / 2, "docs.cloud.google.com/tpu/docs/tpu7x",
        gib=96, bandwidth=7380e9 / 2, ring=1200e9 / 6, wraps=4,
    ),
    "h100": Chip(
        r"NVIDIA H100 80GB HBM3", _HOPPER, "NVIDIA H100 SXM data sheet",
        memory=84_929_347_584, memory_bandwidth=3.35e12, ring_bandwidth=450e9, wraps=0,
    ),
    "h200": Chip(
        r"NVIDIA H200", _HOPPER, "NVIDIA H200 SXM data sheet",
        memory=150_754_820_096, memory_bandwidth=4.8e12, ring_bandwidth=450e9, wraps=0,
    ),
    # Memory and bandwidth as the driver tells them and OpenXLA describes the card; data sheets round to 8 TB/s.
    "b200": Chip(
        r"NVIDIA B200", {"bfloat16": 2250e12, "float32": 1125e12}, "NVIDIA HGX B200 data sheet, an eighth of it",
        memory=191_514_411_008, memory_bandwidth=7.672e12, ring_bandwidth=900e9, wraps=0,
    ),
}  # fmt: skip
"""By the name that a topology begins with."""

ACCELERATORS: tuple[Accelerator, ...] = (
    *CHIPS.values(),
    Accelerator(r"NVIDIA H100 PCIe", {"bfloat16": 756e12, "float32": 378e12}, "NVIDIA H100 PCIe data sheet"),
    Accelerator(r"NVIDIA A100.*GB.*", {"bfloat16": 312e12, "float32": 156e12}, "NVIDIA A100 data sheet"),
    Accelerator(r"Tesla V100-SXM2-\d+GB", {"float32": 15.7e12}, "NVIDIA V100 data sheet"),
)
"""All that are known."""


def peak_flops(device_kind: str, dtype: str) -> float | None:
    """Peak FLOP/s of one device for a compute dtype ("bfloat16", "float32"); None for a device that is not listed.

    The class head's products, three bfloat16 passes, are held against the same peak.
    """
    if " MIG " in device_kind:  # a slice of a GPU has part of its peak
        return None
    for accelerator in ACCELERATORS:
        if re.fullmatch(accelerator.device_kind, device_kind):
            return accelerator.flops.get(dtype)
    return None
