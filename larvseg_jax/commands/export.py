"""Writes a trained model to one file: larvseg export --run=runs/x [--step=800] --out=model.safetensors.

By default the newest checkpoint; --memory adds the method's memory (LarvSeg: its bank). The file can be given as
config.pretrained, to evaluate.py and to predict.
"""

from __future__ import annotations

from pathlib import Path

from larvseg_jax.cli import Flags, Given
from larvseg_jax.commands._places import check_output
from larvseg_jax.weights.places import check_model


def define(flags: Flags) -> None:
    """Adds the flags."""
    flags.text("run", None, "Folder of a run or of a checkpoint.", required=True)
    flags.whole("step", None, "Step of the checkpoint; by default the newest.", least=0)
    flags.text("out", None, "File to write, ending in .safetensors.", required=True)
    flags.switch("memory", "Write the method's memory too.")


def main(given: Given) -> None:
    """Exports the checkpoint."""
    check_model(Path(given.run), given.step)
    check_output(given.out, "out", ".safetensors")
    # Imported late: a mistyped flag is answered before JAX has started.
    from larvseg_jax.export import export

    export(Path(given.run), Path(given.out), given.step, memory=given.memory)
