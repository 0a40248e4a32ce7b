"""Writes a trained model to one file: python -m larvseg_jax.export --run=runs/x [--step=800] --to=model.safetensors.

By default the newest checkpoint; --bank adds the memory bank. The file can be given as config.pretrained.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

import ml_collections
from flax import traverse_util

from larvseg_jax.config import from_config
from larvseg_jax.errors import UserError
from larvseg_jax.interchange import ModelMetadata, SavedModel, save_safetensors
from larvseg_jax.own_checkpoint import read_checkpoint
from larvseg_jax.progress import console, stage


def export(run: Path, to: Path, step: int | None = None, *, bank: bool = False) -> None:
    """Exports a checkpoint of a run.

    Raises:
      UserError: there is no such checkpoint, it is damaged, or the file cannot be written.
    """
    with stage("checkpoint"):
        found = read_checkpoint(run, step, bank=bank)
        settings = from_config(ml_collections.ConfigDict(found.record.settings))
    metadata = ModelMetadata(
        classes=found.record.classes,
        base=settings.vocabulary.base,
        novel=settings.vocabulary.novel,
        background=settings.vocabulary.background,
        vit=settings.vit,
        source=str(run),
        step=found.step,
        settings=found.record.settings,
        versions=found.record.versions,
    )
    params = traverse_util.unflatten_dict(dict(found.weights.arrays), sep="/")
    with stage("writing"):
        digest = save_safetensors(to, SavedModel(params, found.bank, metadata))
    size = to.stat().st_size / 2**20
    console.print(f"{to}: step {found.step}, {len(metadata.classes)} classes, {size:.1f} MiB, digest {digest[:12]}")


def main(arguments: Sequence[str] | None = None) -> None:
    """Command line; bad input becomes one line on stderr and exit code 2."""
    parser = argparse.ArgumentParser(description="Writes a trained model to one .safetensors file.")
    parser.add_argument("--run", type=Path, required=True, help="folder of the run, or of one of its checkpoints")
    parser.add_argument("--to", type=Path, required=True, help="file to write, ending in .safetensors")
    parser.add_argument("--step", type=int, help="step of the checkpoint; by default the newest")
    parser.add_argument("--bank", action="store_true", help="write the memory bank too")
    given = parser.parse_args(arguments)
    try:
        export(given.run, given.to, given.step, bank=given.bank)
    except UserError as error:
        print(f"error: {error}", file=sys.stderr)
        sys.exit(2)


if __name__ == "__main__":
    main()
