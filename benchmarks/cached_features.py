"""Steps per second of a head with memory bank and CA-Classifier on cached features: 25, 1,000 and 21,841 classes.

    python -m benchmarks.cached_features [--steps=20] [--classes=25,1000,21841]

The shapes are those of the ViT-S of DINOv2 on crops of 224 pixels: 16 x 16 patches and a class token, width 384, after
all 12 blocks; batches of 24 masked and 24 tagged photos, loss grid 112 x 112, one tag a photo. The tokens are random;
everything else is real: files of features, their reading by threads, the compiled step of training.
"""

from __future__ import annotations

import argparse
import os
import tempfile
import time
from pathlib import Path
from typing import Any

import jax
import numpy as np

from configs import common
from data_pipelines.feature_files import FeatureFacts, id_array, records_of_a_shard, write_shard
from larvseg_jax import assemble
from larvseg_jax.config import Experiment, from_config
from larvseg_jax.models.frozen import frozen_blocks
from larvseg_jax.stored_features import model_options, stream_options

SIDE, GRID, PHOTOS, BATCH = 224, 16, 96, 24


def run_of(classes: int, features: Path) -> Experiment:
    """A run of so many classes, half of them base (171 at most)."""
    names = tuple(f"class {i}" for i in range(classes))
    base = names[: min(max(classes // 2, 1), 171)]
    config = common.get_config()
    config.vocabulary = dict(classes=names, base=base, novel=names[len(base) :], background="", ignore_in_eval=())
    config.model.update(common.VIT_SIZES["S"], patch_size=14, image_size=518)
    config.optimizer.frozen = "^backbone/"
    config.features = str(features)
    photos = dict(batch_size=BATCH, crop_size=SIDE, source=common.source(folder="none"))
    config.streams.masks = common.mask_stream(**photos, classes=base)
    config.streams.tags = common.tag_stream(**photos, tags_from="image", max_labels=1)
    config.method.ca_classifier.warmup = 0
    config.evals = {}
    return from_config(config)


def write_features(run: Experiment, folder: Path) -> None:
    """Random tokens and labels for both streams."""
    rng = np.random.default_rng(0)
    for name, stream in run.streams.items():
        classes = run.catalogue.label_set(stream).names
        labels = {k: (spec.shape, spec.dtype) for k, spec in stream.view.spec().items() if k != "image"}
        tokens = {"leading": ((1, run.vit.width), "float16"), "patches": ((GRID, GRID, run.vit.width), "float16")}
        arrays: dict[str, tuple[tuple[int, ...], str]] = {**tokens, **labels}
        facts = FeatureFacts(
            weights={},
            model=model_options(run),
            stream=stream_options(run, name),
            classes=classes,
            blocks=frozen_blocks(run.vit, run.optimizer.frozen),
            photos=PHOTOS,
            views=1,
            seed=0,
            arrays=arrays,
            records_per_shard=records_of_a_shard(arrays),
            made={},
        )
        (folder / name).mkdir(parents=True)
        facts.write(folder / name)
        for path, records in facts.shards(folder / name):
            write_shard(path, [_record(rng, arrays, len(classes)) for _ in records])


def _record(rng: np.random.Generator, arrays: dict[str, tuple[tuple[int, ...], str]], classes: int) -> dict[str, Any]:
    def draw(shape: tuple[int, ...], dtype: str) -> np.ndarray:
        if dtype == "float16":
            return rng.standard_normal(shape).astype(dtype)
        if len(shape) == 1:
            return rng.integers(classes, size=shape, dtype=np.int32)
        coarse = rng.integers(classes, size=(8, 8), dtype=np.int32)  # regions, as masks have them
        return np.kron(coarse, np.ones((shape[0] // 8, shape[1] // 8), np.int32))

    return {"id": id_array("photo"), **{name: draw(*array) for name, array in arrays.items()}}


def measure(classes: int, steps: int) -> str:
    """A row of the table."""
    with tempfile.TemporaryDirectory() as folder:
        run = run_of(classes, Path(folder))
        write_features(run, Path(folder))
        mesh = assemble.mesh_of(run)
        method = assemble.make_method(run, mesh)
        state = assemble.fresh_state(run, mesh, method)
        step = assemble.seeded(run, mesh, assemble.lower_step(run, mesh, state, method).compile())
        batches = map(assemble.batch_placer(run, mesh), assemble.host_batches(run, assemble.open_streams(run), 0))
        metrics: Any = None
        for _ in range(3):
            state, metrics = step(state, next(batches))
        jax.block_until_ready(metrics)
        begin = time.perf_counter()
        for _ in range(steps):
            state, metrics = step(state, next(batches))
        jax.block_until_ready(metrics)
        seconds = (time.perf_counter() - begin) / steps
        begin = time.perf_counter()
        for _ in range(steps):
            next(batches)
        reading = (time.perf_counter() - begin) / steps
    gflop = sum(method.flops().values()) / 1e9
    return f"| {classes:,} | {1 / seconds:.2f} | {1e3 * seconds:.0f} | {1e3 * reading:.0f} | {gflop:.1f} |"


def main() -> None:
    """Prints the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--steps", type=int, default=20)
    parser.add_argument("--classes", default="25,1000,21841")
    args = parser.parse_args()
    print(f"{os.cpu_count()} {jax.devices()[0].device_kind} cores, jax {jax.__version__}\n")
    print("| classes | steps/s | ms a step | of these reading alone would take | GFLOP of a step |")
    print("|---|---|---|---|---|")
    for classes in map(int, args.classes.split(",")):
        print(measure(classes, args.steps), flush=True)


if __name__ == "__main__":
    main()
