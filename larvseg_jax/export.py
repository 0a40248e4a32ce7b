"""Writes a trained model to one file: larvseg export --run=runs/x [--step=800] --out=model.safetensors.

By default the newest checkpoint; --memory adds the memory bank, --learnt leaves out what the pretrained file has.
"""

from __future__ import annotations

import dataclasses
from pathlib import Path

from larvseg_jax import cli
from larvseg_jax.config import network_sections
from larvseg_jax.console import console, in_bytes, stage
from larvseg_jax.errors import UserError
from larvseg_jax.trained import Trained, load_trained
from larvseg_jax.weights.learnt import split_off
from larvseg_jax.weights.safetensors_file import ModelMetadata, SavedModel, arrays_by_path, save_safetensors


def export(
    run: Path, to: Path, step: int | None = None, *, memory: bool = False, pretrained: Path | None = None
) -> None:
    """Exports a checkpoint of a run, or an exported file once more: all its parameters in float32.

    Args:
      run: folder of a run or of a checkpoint, or an exported file.
      to: the .safetensors file to write.
      step: which checkpoint; the newest by default.
      memory: write the method's memory, too.
      pretrained: the weights that an exported file leaves out (`trained.load_trained`).

    Raises:
      UserError: there is no such checkpoint, it is damaged, or the file cannot be written.
    """
    with stage("checkpoint"):
        trained = load_trained(run, step, memory=memory, pretrained=pretrained)
    with stage("writing"):
        stored = arrays_by_path(trained.memory) if memory else {}
        metadata = _metadata(trained)
        digest = save_safetensors(to, SavedModel(arrays_by_path(trained.params), stored, metadata))
    size = to.stat().st_size / 2**20
    console.print(f"{to}: step {trained.step}, {len(metadata.classes)} classes, {size:.1f} MiB, digest {digest[:12]}")


def export_learnt(run: Path, to: Path, step: int | None = None, pretrained: Path | None = None) -> SavedModel:
    """Exports only what a run has learnt, as float16; the rest stays in the file that it began with.

    The method's memory, which no score needs, is left out.

    Args:
      run: folder of a run or of a checkpoint.
      to: the .safetensors file to write.
      step: which checkpoint; the newest by default.
      pretrained: where the weights lie that the run began with, if not where `config.pretrained` says.

    Returns:
      what was written.

    Raises:
      UserError: as `export` and `weights.learnt.split_off`; the run began from scratch, or its scores need its memory.
    """
    if run.is_file():
        raise UserError(f"{run} is a file: --learnt takes the folder of a run or of a checkpoint")
    with stage("checkpoint"):
        trained = load_trained(run, step)
        began_with = pretrained or Path(str(trained.settings.get("pretrained", ""))).expanduser()
        if began_with == Path():
            raise UserError(f"{run} began from scratch: no other file has its weights, export all (without --learnt)")
        if trained.method.scorer(trained.vocabulary.label_set()).reads_memory:
            raise UserError(f"{run}: its scores need its memory: export all (--memory, without --learnt)")
    with stage("writing"):
        vit = network_sections(trained.settings)[1]
        learnt = split_off(arrays_by_path(trained.params), began_with, vit, run)
        metadata = dataclasses.replace(_metadata(trained), frozen=learnt.frozen, pretrained=learnt.source)
        saved = SavedModel(learnt.arrays, {}, metadata)
        digest = save_safetensors(to, saved)
    size = in_bytes(to.stat().st_size)
    parts = f"{len(learnt.arrays)} arrays in float16, {len(learnt.frozen)} left to {learnt.source}, no memory"
    console.print(f"{to}: step {trained.step}, {len(metadata.classes)} classes, {size}, digest {digest[:12]}; {parts}")
    return saved


def _metadata(trained: Trained) -> ModelMetadata:
    words = trained.vocabulary
    return ModelMetadata(
        classes=words.classes,
        base=words.base,
        novel=words.novel,
        background=words.background,
        source=str(trained.source),
        step=trained.step,
        settings=trained.settings,
        versions=trained.versions,
    )


if __name__ == "__main__":
    cli.run("export")
