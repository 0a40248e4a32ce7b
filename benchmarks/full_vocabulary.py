"""Real training steps of configs/c171_i21k.py at its true size: ViT-B/16, all 21,841 synsets, memory bank of 20.

    python -m benchmarks.full_vocabulary [--steps=3] [--masks=2] [--tags=2]

Only the batches are small and the pictures generated (JPEG files of COCO's and ImageNet's sizes, under true names of
synsets); the weights are random. Photos are prepared by the builders and go through the input pipeline into the
compiled step of training, in a process of its own, whose peak of resident memory is printed.
"""

from __future__ import annotations

import argparse
import io
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np
from PIL import Image

from benchmarks._memory import peak_resident
from benchmarks._pictures import IGNORE, draw_pictures
from data_pipelines.builders.coco_stuff import CocoStuff
from data_pipelines.builders.imagenet21k import ImageNet21k
from data_pipelines.builders.prepare import prepare
from data_pipelines.decode import decode_mask
from larvseg_jax.class_lists import class_list

LIMIT_GIB = 16
PHOTOS = 12
SYNSETS = 6


def write_downloads(folder: Path) -> tuple[Path, Path]:
    """Generated COCO-Stuff and ImageNet-21K as they are downloaded; their folders."""
    coco, imagenet = folder / "coco_stuff164k", folder / "imagenet21k"
    for i, (photo, mask) in enumerate(draw_pictures("C171", PHOTOS)):
        split = "val2017" if i == 0 else "train2017"
        assert mask is not None
        labels = decode_mask(mask, "")
        for kind in ("images", "annotations"):
            (coco / kind / split).mkdir(parents=True, exist_ok=True)
        (coco / "images" / split / f"{i:012d}.jpg").write_bytes(photo)
        file = io.BytesIO()
        Image.fromarray(np.where(labels == IGNORE, 255, labels).astype(np.uint8)).save(file, "PNG")
        (coco / "annotations" / split / f"{i:012d}_labelTrainIds.png").write_bytes(file.getvalue())
    synsets = class_list("imagenet_21k").ids
    chosen = synsets[:: len(synsets) // SYNSETS][:SYNSETS]
    for i, (photo, _) in enumerate(draw_pictures("I21K", PHOTOS)):
        wnid = chosen[i % SYNSETS]
        (imagenet / wnid).mkdir(parents=True, exist_ok=True)
        (imagenet / wnid / f"{wnid}_{i}.JPEG").write_bytes(photo)
    return coco, imagenet


def train_steps(data_root: Path, steps: int, masks: int, tags: int) -> None:
    """Takes the steps and prints losses, seconds and memory."""
    # Only the process that trains needs the libraries of training.
    import jax

    from configs import c171_i21k
    from larvseg_jax import data
    from larvseg_jax.config import from_config
    from larvseg_jax.sharding import make_mesh
    from larvseg_jax.train_loop import batches_from, lower_step
    from larvseg_jax.train_state import fresh_state

    config = c171_i21k.get_config()
    config.data_root, config.pretrained = str(data_root), ""
    config.streams.c171.batch_size, config.streams.imagenet.batch_size = masks, tags
    run = from_config(config)
    mesh = make_mesh(*run.mesh)
    classes = {name: len(run.label_set(stream)) for name, stream in run.streams.items()}
    print(f"jax {jax.__version__}, {os.cpu_count()} {jax.devices()[0].device_kind} cores, ViT {run.vit.depth} x "
          f"{run.vit.width}, {len(run.vocabulary.classes)} rows, {classes}, batch {masks} + {tags}")  # fmt: skip
    state = fresh_state(run, mesh)
    bank = state.bank.slots
    print(f"parameters {sum(x.size for x in jax.tree.leaves(state.params)):,}, bank {list(bank.shape)} {bank.dtype} "
          f"{bank.nbytes / 1e9:.2f} GB", flush=True)  # fmt: skip
    begin = time.perf_counter()
    train_step = lower_step(run, mesh, state).compile()
    analysis = train_step.memory_analysis()
    assert analysis is not None
    print(f"compiled in {time.perf_counter() - begin:.0f} s; its temporary memory "
          f"{analysis.temp_size_in_bytes / 1e9:.2f} GB", flush=True)  # fmt: skip
    batches = map(data.BatchPlacer(run, mesh), batches_from(run, data.open_streams(run), 0))
    for step in range(1, steps + 1):
        batch = next(batches)
        begin = time.perf_counter()
        state, metrics = jax.block_until_ready(train_step(state, batch))
        seconds = time.perf_counter() - begin
        parts = ", ".join(f"{name} {float(value):.4f}" for name, value in metrics.items())
        print(f"step {step}: {seconds:.1f} s; {parts}", flush=True)
    written = int(np.count_nonzero(np.any(np.asarray(state.bank.class_mean) != 0, axis=1)))
    peak = peak_resident() / 2**30
    print(f"classes in the bank: {written}; peak resident memory {peak:.2f} GiB "
          f"({'under' if peak < LIMIT_GIB else 'OVER'} {LIMIT_GIB} GiB)")  # fmt: skip


def main() -> None:
    """Prepares the data, then trains in a process of its own."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--steps", type=int, default=3)
    parser.add_argument("--masks", type=int, default=2, help="COCO-Stuff pictures of a step")
    parser.add_argument("--tags", type=int, default=2, help="ImageNet pictures of a step")
    parser.add_argument("--prepared", type=Path, help="folder of prepared data sets: train in this process")
    args = parser.parse_args()
    if args.prepared:
        train_steps(args.prepared, args.steps, args.masks, args.tags)
        return
    with tempfile.TemporaryDirectory() as folder:
        coco, imagenet = write_downloads(Path(folder))
        prepare(CocoStuff, coco, Path(folder, "prepared"))
        prepare(ImageNet21k, imagenet, Path(folder, "prepared"))
        command = [sys.executable, "-m", "benchmarks.full_vocabulary", f"--prepared={folder}/prepared"]
        sizes = [f"--steps={args.steps}", f"--masks={args.masks}", f"--tags={args.tags}"]
        sys.exit(subprocess.run([*command, *sizes], check=False).returncode)


if __name__ == "__main__":
    main()
