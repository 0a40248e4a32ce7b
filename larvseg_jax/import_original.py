"""Turns a checkpoint of the original (PyTorch) into a file of ours, without PyTorch.

larvseg import_original --file=authors.pth [--union=union_a150_c171] --out=model.safetensors
"""

from __future__ import annotations

import dataclasses
from pathlib import Path

import jax
from flax import traverse_util

from larvseg_jax import cli
from larvseg_jax.console import console, stage
from larvseg_jax.devices.mesh import make_mesh
from larvseg_jax.errors import UserError
from larvseg_jax.methods import method_config
from larvseg_jax.methods.method import Task
from larvseg_jax.weights.original import BANK, HEAD_DIM, OriginalCheckpoint, base_and_novel, union_classes, vit_config
from larvseg_jax.weights.pretrained import fit
from larvseg_jax.weights.safetensors_file import ModelMetadata, SavedModel, save_safetensors


def import_original(file: Path, to: Path, union: str | None = None, heads: int | None = None) -> None:
    """Converts a file, with its memory bank if it has one.

    Args:
      file: a .pth file of the original.
      to: the .safetensors file to write.
      union: class list that names the rows of its class embeddings; by default the union with as many.
      heads: attention heads; by default one per 64 features.

    Raises:
      UserError: the file cannot be read, or it is not a whole segmenter of the original.
    """
    with stage("reading"):
        original = OriginalCheckpoint.open(file)
        if not original.class_rows:
            raise UserError(f"{file} has no decode_head.cls_emb: only whole segmenters can be converted")
        if heads is None and original.width % HEAD_DIM:
            raise UserError(f"{file} is {original.width} wide, no multiple of {HEAD_DIM}: give the number of --heads")
        classes = union_classes(original.class_rows, union, file)
        stored = original.weights(classes, heads)
        vit = vit_config(stored.shapes, file)
        base, novel = base_and_novel(classes)
        bank = original.bank()
        ca_classifier = {"memory_bank_size": bank["slots"].shape[1]} if bank else {}
        settings = {
            "model": dataclasses.asdict(vit),
            "method": {"name": "larvseg", "ca_classifier": ca_classifier},
        }
        metadata = ModelMetadata(classes, base, novel, "", file.name, -1, settings, {})
        method = method_config("larvseg")().make(Task(len(classes), vit, {}, make_mesh(1, 1, jax.devices()[:1])))
        layout, _ = jax.eval_shape(method.init, jax.random.key(0))
        shapes = {name: x.shape for name, x in traverse_util.flatten_dict(layout, sep="/").items()}
        arrays, report = fit(stored, shapes, vit, file)
        if bank:
            report = dataclasses.replace(report, extra=tuple(n for n in report.extra if n not in BANK))
    console.print(f"  {report}")
    with stage("writing"):
        digest = save_safetensors(to, SavedModel(arrays, bank, metadata))
    console.print(f"{to}: {len(classes)} classes, {'with' if bank else 'no'} memory bank, digest {digest[:12]}")


if __name__ == "__main__":
    cli.run("import_original")
