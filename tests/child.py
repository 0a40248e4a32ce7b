"""The environment of a program that a test starts: a user's, but that its programs compile in a third of the time."""

import os

QUICKLY = "--xla_backend_optimization_level=0 --xla_cpu_use_fusion_emitters=false"
"""For XLA_FLAGS. Compiling is most of what the tests of small models do."""


def environment(devices: int = 1, **more: str) -> dict[str, str]:
    """That of this process without its strictness, on so many CPU devices."""
    own = {name: value for name, value in os.environ.items() if not name.startswith("JAX_NUMPY")}
    count = f" --xla_force_host_platform_device_count={devices}" if devices > 1 else ""
    return own | {"JAX_PLATFORMS": "cpu", "XLA_FLAGS": QUICKLY + count} | more
