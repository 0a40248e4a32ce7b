"""The table of accelerators against the numbers that their makers publish, written out here once more."""

import re

import pytest

from larvseg_jax.devices.peaks import ACCELERATORS, CHIPS, peak_flops


@pytest.mark.parametrize(
    ("kind", "bfloat16", "float32"),
    [
        ("NVIDIA H200", 989.4e12, 494.7e12),
        ("NVIDIA H100 80GB HBM3", 989.4e12, 494.7e12),
        ("NVIDIA H100 PCIe", 756e12, 378e12),
        ("NVIDIA A100-SXM4-40GB", 312e12, 156e12),
        ("NVIDIA A100 80GB PCIe", 312e12, 156e12),
        ("Tesla V100-SXM2-16GB", None, 15.7e12),
        ("TPU v4", 275e12, 275e12),
        ("TPU v5 lite", 197e12, 197e12),
        ("TPU v5", 459e12, 459e12),
        ("TPU v5p", 459e12, 459e12),
        ("TPU v6 lite", 918e12, 918e12),
        ("TPU7x", 1_153.5e12, 1_153.5e12),
        ("NVIDIA B200", 2_250e12, 1_125e12),
        ("NVIDIA B200 MIG 1g.23gb", None, None),
        ("cpu", None, None),
        ("NVIDIA H100 80GB HBM3 MIG 1g.10gb", None, None),
        ("NVIDIA A100-SXM4-40GB MIG 1g.5gb", None, None),
        ("NVIDIA H200 NVL", None, None),
        ("NVIDIA GeForce RTX 4090", None, None),
        ("TPU v4 lite", None, None),
    ],
)
def test_peak_is_that_of_the_data_sheet_or_unknown(kind, bfloat16, float32):
    assert peak_flops(kind, "bfloat16") == bfloat16
    assert peak_flops(kind, "float32") == float32


@pytest.mark.parametrize(
    ("name", "precise", "memory", "bandwidth", "ring", "wraps"),
    [
        ("v4", 275e12 / 3, 34_359_738_368, 1.2e12, 100e9, 4),
        ("v5e", 197e12 / 3, 17_179_869_184, 819e9, 100e9, 16),
        ("v5p", 459e12 / 3, 102_005_473_280, 2.765e12, 200e9, 4),
        ("v6e", 918e12 / 3, 34_359_738_368, 1.6e12, 200e9, 16),
        ("tpu7x", 1_153.5e12 / 3, 103_079_215_104, 3.69e12, 200e9, 4),
        ("h100", 989.4e12 / 3, 84_929_347_584, 3.35e12, 450e9, 0),
        ("h200", 989.4e12 / 3, 150_754_820_096, 4.8e12, 450e9, 0),
        ("b200", 2_250e12 / 3, 191_514_411_008, 7.672e12, 900e9, 0),
    ],
)
def test_what_a_step_is_compiled_for_is_as_published(name, precise, memory, bandwidth, ring, wraps):
    chip = CHIPS[name]
    assert chip.precise_flops == pytest.approx(precise)
    assert (chip.memory, chip.memory_bandwidth, chip.ring_bandwidth, chip.wraps) == (memory, bandwidth, ring, wraps)


def test_topologies_and_devices_have_the_same_names():
    kinds = {"v4": "TPU v4", "v5e": "TPU v5 lite", "v5p": "TPU v5", "v6e": "TPU v6 lite", "tpu7x": "TPU7x",
             "h100": "NVIDIA H100 80GB HBM3", "h200": "NVIDIA H200", "b200": "NVIDIA B200"}  # fmt: skip
    assert kinds.keys() == CHIPS.keys()
    for name, kind in kinds.items():
        named = [accelerator for accelerator in ACCELERATORS if re.fullmatch(accelerator.device_kind, kind)]
        assert named == [CHIPS[name]]


def test_every_number_has_a_source():
    assert all(accelerator.source for accelerator in ACCELERATORS)
