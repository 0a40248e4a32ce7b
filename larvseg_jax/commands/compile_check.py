"""Compiles a run's train step for a TPU slice (or GPUs) that is not here, and says whether it fits and what it costs.

    python -m larvseg_jax.compile_check --config=configs/c171_i21k.py --topology=v5e:16x16 [--mesh=64x4]
        [--images_per_chip=2] [--quick] [--json=FILE] [--config.option=value ...]

Needs no accelerator, only its compiler: pip install 'jax[tpu]' (docs/scaling.md).
Exit code 0: compiled, fits, and training takes this mesh; 1: not so; 2: bad command line or config.
"""

from __future__ import annotations

import re
import sys
from pathlib import Path

from larvseg_jax.cli import Flags, Given
from larvseg_jax.commands._places import check_output
from larvseg_jax.errors import UserError


def define(flags: Flags) -> None:
    """Adds the flags."""
    flags.config("Config of the run.", required=True)
    flags.text(
        "topology",
        None,
        "What to compile for: v5e:4x4, v4:2x2x2, v5p:..., v6e:..., tpu7x:..., h100:1x8, h200:..., b200:...",
        required=True,
    )
    flags.text("mesh", "", "DATAxMODEL, such as 32x8; by default as the config has it.")
    flags.whole(
        "images_per_chip",
        0,
        "Pictures of a step for each chip, of all streams together and in the config's proportions. "
        "0: the config's batch sizes, each raised to what the mesh divides.",
        least=0,
    )
    flags.switch("quick", "Optimise little: 5 to 10 times faster, with nearly the same memory.")
    flags.text("json", None, "File for the same findings as JSON.")


def main(given: Given) -> None:
    """Compiles, prints, and leaves with the exit code."""
    data_and_model = _mesh(given.mesh) if given.mesh else None
    check_output(given.json, "json")
    import jax

    jax.config.update("jax_platforms", "cpu")  # the step is only compiled: plugins are not to look for their devices
    from larvseg_jax.compile_check.report import check, fit_batch, print_report, write_json
    from larvseg_jax.compile_check.target import open_target, target_mesh
    from larvseg_jax.config import from_config

    config = given.config
    if data_and_model:
        config.mesh.data, config.mesh.model = data_and_model
    target = open_target(given.topology)
    mesh, refusal = target_mesh(target, config.mesh.data, config.mesh.model)
    changed = fit_batch(config, mesh, given.images_per_chip)
    report = check(from_config(config), mesh, target, quick=given.quick, changed=changed, refusal=refusal)
    print_report(report)
    if given.json:
        write_json(report, Path(given.json))
    sys.exit(0 if report.fits and not refusal else 1)


def _mesh(text: str) -> tuple[int, int]:
    match = re.fullmatch(r"(\d+)x(\d+)", text)
    if match is None:
        raise UserError(f"--mesh={text!r} is no mesh: use DATAxMODEL, such as 4x2")
    return int(match[1]), int(match[2])
