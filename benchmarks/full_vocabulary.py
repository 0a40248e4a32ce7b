"""Real training steps of configs/c171_i21k.py at its true size: ViT-B/16, all 21,841 synsets, memory bank of 20.

    python -m benchmarks.full_vocabulary [--steps=3] [--masks=2] [--tags=2] [--dtype=bfloat16]

Only the batches are small and the pictures generated (JPEG files of COCO's and ImageNet's sizes, under true names of
synsets); the weights are random, and so is the memory bank, whose rings count as filled once: L_aux acts from the
first step on. Photos are prepared by the builders and go through the input pipeline into the
compiled step of training, in a process of its own, whose peak of resident memory is printed.
"""

from __future__ import annotations

import argparse
import dataclasses
import io
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from PIL import Image

from benchmarks._heads import project
from benchmarks._memory import peak_resident
from benchmarks._pictures import IGNORE, draw_pictures
from configs import c171_i21k
from data_pipelines.builders.coco_stuff import CocoStuff
from data_pipelines.builders.imagenet21k import ImageNet21k
from data_pipelines.builders.preparation import prepare
from data_pipelines.decode import decode_mask
from larvseg_jax import assemble
from larvseg_jax.assemble import fresh_state, lower_step
from larvseg_jax.config import Experiment, from_config
from larvseg_jax.devices.memory import program_memory
from larvseg_jax.methods.larvseg.ca_classifier import MinedBackground, mine_background
from larvseg_jax.methods.larvseg.memory_bank import MemoryBank
from larvseg_jax.methods.larvseg.method import LarvSeg
from larvseg_jax.methods.larvseg.network import class_rows
from larvseg_jax.methods.larvseg.options import TagLoss
from larvseg_jax.training.state import TrainState
from larvseg_jax.vocabulary.class_lists import class_list

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


def filled(bank: MemoryBank) -> MemoryBank:
    """Random vectors of about unit length in all slots (`Original:` so a fresh bank looks), every ring filled once."""
    slots = jax.random.normal(jax.random.key(0), bank.slots.shape, bank.slots.dtype) * bank.slots.shape[-1] ** -0.5
    return dataclasses.replace(MemoryBank.from_slots(slots), wraps=jnp.ones_like(bank.wraps))


def experiment(masks: int, tags: int, dtype: str, data_root: Path | None = None) -> Experiment:
    """The config with batches of so many pictures with masks and with tags, and random weights."""
    config = c171_i21k.get_config()
    config.data_root, config.pretrained = str(data_root or ""), ""
    config.streams.c171.batch_size, config.streams.imagenet.batch_size = masks, tags
    config.model.dtype = dtype
    return from_config(config)


def train_steps(data_root: Path, steps: int, masks: int, tags: int, dtype: str) -> None:
    """Takes the steps and prints losses, seconds and memory."""
    run = experiment(masks, tags, dtype, data_root)
    mesh = assemble.mesh_of(run)
    classes = {name: len(run.catalogue.label_set(stream)) for name, stream in run.streams.items()}
    print(f"jax {jax.__version__}, {os.cpu_count()} {jax.devices()[0].device_kind} cores, ViT {run.vit.depth} x "
          f"{run.vit.width}, {len(run.vocabulary.classes)} rows, {classes}, batch {masks} + {tags}")  # fmt: skip
    state = fresh_state(run, mesh)
    state = dataclasses.replace(state, memory=filled(state.memory))
    bank = state.memory.slots
    print(f"parameters {sum(x.size for x in jax.tree.leaves(state.params)):,}, bank {list(bank.shape)} {bank.dtype} "
          f"{bank.nbytes / 1e9:.2f} GB", flush=True)  # fmt: skip
    begin = time.perf_counter()
    compiled = lower_step(run, mesh, state).compile()
    memory = program_memory(compiled)
    assert memory is not None
    print(f"compiled in {time.perf_counter() - begin:.0f} s; its temporary memory "
          f"{memory.temporary / 1e9:.2f} GB", flush=True)  # fmt: skip
    train_step = assemble.seeded(run, mesh, compiled)
    batches = map(assemble.batch_placer(run, mesh), assemble.host_batches(run, assemble.open_streams(run), 0))
    for step in range(1, steps + 1):
        batch = next(batches)
        begin = time.perf_counter()
        state, metrics = jax.block_until_ready(train_step(state, batch))
        seconds = time.perf_counter() - begin
        parts = ", ".join(f"{name} {float(value):.4f}" for name, value in metrics.items())
        print(f"step {step}: {seconds:.4g} s; {parts}", flush=True)
    written = int(np.count_nonzero(np.asarray(state.memory.cursor)))
    peak = peak_resident() / 2**30  # of training, before the parts are timed
    print(f"classes written to the bank: {written}; peak resident memory {peak:.2f} GiB "
          f"({'under' if peak < LIMIT_GIB else 'OVER'} {LIMIT_GIB} GiB)")  # fmt: skip
    print_parts(run, mesh, state)


def print_parts(run: Experiment, mesh: jax.sharding.Mesh, state: TrainState) -> None:
    """Seconds of the mining, compiled alone: random features, one tag a picture. Losses: class_scaling."""
    method = assemble.make_method(run, mesh)
    assert isinstance(method, LarvSeg)
    (stream,) = (s for s in method.streams if isinstance(s.loss, TagLoss))
    ca, classes, batch = method.config.ca_classifier, state.memory.cursor.shape[0], run.streams[stream.name].batch_size
    view = run.streams[stream.name].view
    tags = jnp.full((batch, view.max_labels or 1), -1, "int32").at[:, 0].set(jnp.arange(batch))
    side = view.crop_size // run.vit.patch_size
    features = jax.random.normal(jax.random.key(1), (batch, side, side, run.vit.width))

    def mine(params: Any, features: jax.Array, bank: MemoryBank, tags: jax.Array) -> MinedBackground:
        patches, table = project(stream, params, features, classes)
        flat, rows = patches.reshape(len(tags), side * side, -1), class_rows(stream.label_set, classes)
        means = bank.class_mean if rows is None else bank.class_mean[rows]
        return mine_background(flat, table, means, tags.max(1), flat @ means[0], ca)

    def prepare_only(params: Any, features: jax.Array, bank: MemoryBank, tags: jax.Array) -> tuple[Any, Any]:
        return project(stream, params, features, classes)

    works: dict[str, Callable[..., Any]] = {
        "class projection and mining": mine,
        "class projection": prepare_only,
    }
    for name, work in works.items():
        compiled = jax.jit(work)
        given = state.params["head"], features, state.memory, tags
        jax.block_until_ready(compiled(*given))
        begin = time.perf_counter()
        jax.block_until_ready(compiled(*given))
        print(f"{name}, alone: {time.perf_counter() - begin:.2f} s", flush=True)


def main() -> None:
    """Prepares the data, then trains in a process of its own."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--steps", type=int, default=3)
    parser.add_argument("--masks", type=int, default=2, help="COCO-Stuff pictures of a step")
    parser.add_argument("--tags", type=int, default=2, help="ImageNet pictures of a step")
    parser.add_argument("--dtype", choices=("float32", "bfloat16"), default="float32", help="of the backbone")
    parser.add_argument("--prepared", type=Path, help="folder of prepared data sets: train in this process")
    args = parser.parse_args()
    if args.prepared:
        train_steps(args.prepared, args.steps, args.masks, args.tags, args.dtype)
        return
    with tempfile.TemporaryDirectory() as folder:
        coco, imagenet = write_downloads(Path(folder))
        prepare(CocoStuff, coco, Path(folder, "prepared"))
        prepare(ImageNet21k, imagenet, Path(folder, "prepared"))
        command = [sys.executable, "-m", "benchmarks.full_vocabulary", f"--prepared={folder}/prepared"]
        sizes = [f"--steps={args.steps}", f"--masks={args.masks}", f"--tags={args.tags}", f"--dtype={args.dtype}"]
        sys.exit(subprocess.run([*command, *sizes], check=False).returncode)


if __name__ == "__main__":
    main()
