"""Turns a checkpoint of the original (PyTorch) into a file of ours, without PyTorch.

python -m larvseg_jax.import_original --file=authors.pth [--union=union_a150_c171] --to=model.safetensors
"""

from __future__ import annotations

import argparse
import dataclasses
import sys
from collections.abc import Sequence
from pathlib import Path

import jax
import jax.numpy as jnp
from flax import traverse_util

from larvseg_jax.errors import UserError
from larvseg_jax.interchange import ModelMetadata, SavedModel, save_safetensors
from larvseg_jax.original_weights import BANK, HEAD_DIM, OriginalCheckpoint, base_and_novel, union_classes, vit_config
from larvseg_jax.pretrained import fit
from larvseg_jax.progress import console, stage


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
        metadata = ModelMetadata(classes, base, novel, "", vit, file.name, -1, {}, {})
        one = jnp.zeros(1, jnp.int32), jnp.ones(1)
        images = jnp.zeros((1, vit.image_size, vit.image_size, 3))
        layout = jax.eval_shape(metadata.model().init, jax.random.key(0), images, *one)["params"]
        shapes = {name: x.shape for name, x in traverse_util.flatten_dict(layout, sep="/").items()}
        arrays, report = fit(stored, shapes, vit.stored_grid, file)
        bank = original.bank()
        if bank is not None:
            report = dataclasses.replace(report, extra=tuple(n for n in report.extra if n not in BANK))
    console.print(f"  {report}")
    with stage("writing"):
        digest = save_safetensors(to, SavedModel(traverse_util.unflatten_dict(arrays, sep="/"), bank, metadata))
    console.print(f"{to}: {len(classes)} classes, {'with' if bank else 'no'} memory bank, digest {digest[:12]}")


def main(arguments: Sequence[str] | None = None) -> None:
    """Command line; bad input becomes one line on stderr and exit code 2."""
    parser = argparse.ArgumentParser(description="Turns a PyTorch checkpoint of the original into a file of ours.")
    parser.add_argument("--file", type=Path, required=True, help="checkpoint of the original, .pth")
    parser.add_argument("--to", type=Path, required=True, help="file to write, ending in .safetensors")
    parser.add_argument("--union", help="class list that names its rows; by default the union with as many classes")
    parser.add_argument("--heads", type=int, help="attention heads; by default one per 64 features")
    given = parser.parse_args(arguments)
    try:
        import_original(given.file, given.to, given.union, given.heads)
    except UserError as error:
        print(f"error: {error}", file=sys.stderr)
        sys.exit(2)


if __name__ == "__main__":
    main()
