"""Compiles a run's train step for a TPU slice (or GPUs) that is not here, and says whether it fits and what it costs.

    python -m larvseg_jax.compile_check --config=configs/c171_i21k.py --topology=v5e:16x16 [--mesh=64x4]
        [--images_per_chip=2] [--quick] [--json=FILE] [--config.option=value ...]

Needs no accelerator, only its compiler: pip install 'jax[tpu]' (docs/scaling.md).
Exit code 0: compiled, fits, and training takes this mesh; 1: not so; 2: bad command line or config.
"""

import os
import re
import sys
from pathlib import Path

from absl import flags
from ml_collections import config_flags

from larvseg_jax import cli
from larvseg_jax.errors import UserError

CONFIG = config_flags.DEFINE_config_file("config", None, "Config of the run.", lock_config=True)
TOPOLOGY = flags.DEFINE_string("topology", None, "What to compile for: v5e:4x4, v4:2x2x2, v5p:..., v6e:..., h100:1x8.")
MESH = flags.DEFINE_string("mesh", "", "DATAxMODEL, such as 32x8; by default as the config has it.")
IMAGES = flags.DEFINE_integer(
    "images_per_chip",
    0,
    "Pictures of a step for each chip, of all streams together and in the config's proportions. "
    "0: the config's batch sizes, each raised to what the mesh divides.",
    lower_bound=0,
)
QUICK = flags.DEFINE_bool("quick", False, "Optimise little: 5 to 10 times faster, with nearly the same memory.")
JSON = flags.DEFINE_string("json", None, "File for the same findings as JSON.")
flags.mark_flags_as_required(["config", "topology"])


def main() -> None:
    """Compiles, prints, and leaves with the exit code."""
    os.environ["JAX_PLATFORMS"] = "cpu"  # the step is only compiled: plugins are not to look for their devices
    # Imported late: JAX reads this when it is loaded.
    from larvseg_jax.compile_report import check, fit_batch, print_report, write_json
    from larvseg_jax.compile_target import open_target, target_mesh
    from larvseg_jax.config import from_config

    config = CONFIG.value
    if MESH.value:
        config.mesh.data, config.mesh.model = _mesh(MESH.value)
    target = open_target(TOPOLOGY.value or "")
    mesh, refusal = target_mesh(target, config.mesh.data, config.mesh.model)
    changed = fit_batch(config, mesh, IMAGES.value)
    report = check(from_config(config), mesh, target, quick=QUICK.value, changed=changed, refusal=refusal)
    print_report(report)
    if JSON.value:
        write_json(report, Path(JSON.value))
    sys.exit(0 if report.fits and not refusal else 1)


def _mesh(text: str) -> tuple[int, int]:
    match = re.fullmatch(r"(\d+)x(\d+)", text)
    if match is None:
        raise UserError(f"--mesh={text!r} is no mesh: use DATAxMODEL, such as 4x2")
    return int(match[1]), int(match[2])


if __name__ == "__main__":
    cli.run(main)
