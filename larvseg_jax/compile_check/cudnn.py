"""cuDNN of GPUs that are not here."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator

from jax._src.cudnn import fused_attention_stablehlo as of_jax

from larvseg_jax.compile_check.target import Target

_VERSION = 91000  # of the description that target.py compiles for


@contextlib.contextmanager
def cudnn_of(target: Target) -> Iterator[None]:
    """What is traced meanwhile finds the cuDNN and the tensor cores of a target's GPUs.

    jax asks this machine's driver while it traces, by three functions that are its own: there is no public way to
    trace for another GPU. For TPUs nothing is changed.
    """
    device = target.devices[0]
    answers = {
        "check_cudnn_version": lambda: _VERSION,
        "check_compute_capability": lambda least: float(device.compute_capability) >= float(least),
        "is_cuda_compute_capability_equal": lambda capability: device.compute_capability == capability,
    }
    of_this_machine = {name: getattr(of_jax, name) for name in answers}
    try:
        if device.platform == "gpu":
            vars(of_jax).update(answers)
        yield
    finally:
        vars(of_jax).update(of_this_machine)
