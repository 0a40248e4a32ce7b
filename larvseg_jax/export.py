"""Writes a trained model to one file: larvseg export --run=runs/x [--step=800] --out=model.safetensors.

By default the newest checkpoint; --memory adds the memory bank. The file can be given as config.pretrained.
"""

from __future__ import annotations

from pathlib import Path

from larvseg_jax import cli
from larvseg_jax.console import console, stage
from larvseg_jax.trained import load_trained
from larvseg_jax.weights.safetensors_file import ModelMetadata, SavedModel, arrays_by_path, save_safetensors


def export(run: Path, to: Path, step: int | None = None, *, memory: bool = False) -> None:
    """Exports a checkpoint of a run.

    Raises:
      UserError: there is no such checkpoint, it is damaged, or the file cannot be written.
    """
    with stage("checkpoint"):
        trained = load_trained(run, step, memory=memory)
    words = trained.vocabulary
    metadata = ModelMetadata(
        classes=words.classes,
        base=words.base,
        novel=words.novel,
        background=words.background,
        source=str(run),
        step=trained.step,
        settings=trained.settings,
        versions=trained.versions,
    )
    with stage("writing"):
        stored = arrays_by_path(trained.memory) if memory else {}
        digest = save_safetensors(to, SavedModel(arrays_by_path(trained.params), stored, metadata))
    size = to.stat().st_size / 2**20
    console.print(f"{to}: step {trained.step}, {len(metadata.classes)} classes, {size:.1f} MiB, digest {digest[:12]}")


if __name__ == "__main__":
    cli.run("export")
