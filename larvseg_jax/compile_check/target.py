"""Topologies of accelerators that a step can be compiled for without having them."""

from __future__ import annotations

import dataclasses
import importlib.util
import math
import os
import re
from typing import Any

import jax
from jax.experimental import mesh_utils, topologies
from jax.sharding import Mesh

from larvseg_jax.devices.mesh import make_mesh
from larvseg_jax.devices.peaks import CHIPS, Chip
from larvseg_jax.errors import UserError

_ENVIRONMENT = {  # for libtpu, which reads it when the first topology is asked for
    "ALLOW_MULTIPLE_LIBTPU_LOAD": "1",  # no chips are taken, so other processes do not matter
    "TPU_SKIP_MDS_QUERY": "1",  # do not ask the network which TPU this machine is, ...
    "TPU_ACCELERATOR_TYPE": "v5litepod-4",  # ... since it is none
    "TPU_WORKER_HOSTNAMES": "localhost",
    "TPU_WORKER_ID": "0",
    "TPU_LOG_DIR": "disabled",
    "TPU_STDERR_LOG_LEVEL": "3",
}

_EXAMPLES = (
    "v4:2x2x2, v5e:2x2, v5e:4x4, v5e:16x16, v5p:4x4x4, v6e:4x4, tpu7x:2x2x1 (TPU), "
    "h100:1x8, h200:2x8, b200:1x8 (hosts x GPUs)"
)


@dataclasses.dataclass(frozen=True)
class Target:
    """Devices to compile for; they exist on paper only.

    Attributes:
      name: as asked for, e.g. "v5e:4x4".
      ring_bandwidth: bytes/s of a chip in a ring, both ways together, for the slice's shape.
    """

    name: str
    chip: Chip
    devices: tuple[Any, ...]
    ring_bandwidth: float


def open_target(topology: str) -> Target:
    """The devices of a topology such as "v5e:4x4"; UserError if it is unknown or its compiler is not installed."""
    match = re.fullmatch(r"(\w+):(\d+(?:x\d+){0,2})", topology)
    if match is None or match[1] not in CHIPS:
        raise UserError(f"--topology={topology!r} is unknown: use one such as {_EXAMPLES}")
    chip, sides = CHIPS[match[1]], tuple(map(int, match[2].split("x")))
    _check_installed(topology, chip)
    try:
        described = _tpu(topology, sides) if chip.wraps else _gpu(match[1], sides)
        devices = tuple(described.devices)
    except Exception as error:  # libtpu raises what it likes: RuntimeError, JaxRuntimeError, NotImplementedError
        text = " ".join(str(error).split())[:160]
        raise UserError(f"--topology={topology!r} is refused ({text}): use one such as {_EXAMPLES}") from None
    whole_ring = not chip.wraps or any(side % chip.wraps == 0 for side in sides)
    return Target(topology, chip, devices, chip.ring_bandwidth * (1 if whole_ring else 0.5))


def target_mesh(target: Target, data: int, model: int) -> tuple[Mesh, str]:
    """The mesh that training would make of the devices and "", or another one and why training refuses this mesh.

    UserError if data x model is not the number of devices.
    """
    devices = list(target.devices)
    try:
        return make_mesh(data, model, over=devices), ""
    except UserError as error:
        if data == -1 and model > 0 and len(devices) % model == 0:
            data = len(devices) // model
        if data * model != len(devices) or min(data, model) < 1:
            raise
        refusal = str(error)
    axes = (jax.sharding.AxisType.Auto,) * 2
    grid = mesh_utils.create_device_mesh((data, model), devices, allow_split_physical_axes=True)
    return Mesh(grid, ("data", "model"), axis_types=axes), refusal


def _tpu(topology: str, sides: tuple[int, ...]) -> Any:
    for name, value in _ENVIRONMENT.items():
        os.environ.setdefault(name, value)
    options: dict[str, Any] = {}
    if math.prod(sides) == 1:
        options["chips_per_host_bounds"] = (1, 1, 1)
    if topology.startswith("v4"):
        options["chip_config_name"] = "megacore"  # one device per chip, as train.py finds them
    return topologies.get_topology_desc(platform="tpu", topology_name=topology, **options)


_GPU = """gpu_device_info {{ threads_per_block_limit: 1024 threads_per_warp: 32 shared_memory_per_block: 49152
 shared_memory_per_core: 233472 threads_per_core_limit: 2048 core_count: {cores} fpus_per_core: 128
 block_dim_limit_x: 2147483647 block_dim_limit_y: 65535 block_dim_limit_z: 65535 memory_bandwidth: {bandwidth}
 l2_cache_size: {cache} clock_rate_ghz: {clock} device_memory_size: {memory} shared_memory_per_block_optin: 232448
 cuda_compute_capability {{ major: {major} }} registers_per_core_limit: 65536 registers_per_block_limit: 65536 }}
platform_name: "CUDA" dnn_version_info {{ major: 9 minor: 10 }} runtime_version {{ major: 12 minor: 8 patch: 0 }}
device_description_str: "NVIDIA {name}" """
_OF_GPU: dict[str, dict[str, float]] = {  # what differs, as OpenXLA describes the cards
    "h100": {"major": 9, "cores": 132, "clock": 1.98, "cache": 52_428_800},
    "h200": {"major": 9, "cores": 132, "clock": 1.98, "cache": 62_914_560},
    "b200": {"major": 10, "cores": 148, "clock": 1.965, "cache": 132_644_864},
}


def _gpu(name: str, sides: tuple[int, ...]) -> Any:
    os.environ.setdefault("JAX_SKIP_CUDA_CONSTRAINTS_CHECK", "1")  # there is no driver to ask for its version
    chip = CHIPS[name]
    config = _GPU.format(
        bandwidth=int(chip.memory_bandwidth), memory=int(chip.memory), name=name.upper(), **_OF_GPU[name]
    )
    shape = (1,) * (3 - len(sides)) + sides  # slices x hosts x GPUs of a host
    return topologies.get_topology_desc(platform="cuda", target_config=config, topology="x".join(map(str, shape)))


def _check_installed(topology: str, chip: Chip) -> None:
    if chip.wraps and importlib.util.find_spec("libtpu") is None:
        raise UserError(
            f"--topology={topology!r} needs the TPU compiler, which is not installed: pip install 'jax[tpu]'"
        )
    plugins = importlib.util.find_spec("jax_plugins")
    if not chip.wraps and (plugins is None or importlib.util.find_spec("jax_plugins.xla_cuda12") is None):
        packages = f"'jax-cuda12-plugin=={jax.__version__}' 'jax-cuda12-pjrt=={jax.__version__}'"
        raise UserError(
            f"--topology={topology!r} needs the GPU compiler, which is not installed: pip install {packages}"
        )
