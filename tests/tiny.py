"""A folder data set of a few small pictures, and a config that trains on it in seconds."""

import json
from collections.abc import Sequence
from pathlib import Path

import jax
import ml_collections
import numpy as np
from PIL import Image

from configs import common
from larvseg_jax import assemble
from larvseg_jax.config import from_config
from larvseg_jax.devices.mesh import make_mesh
from larvseg_jax.weights.checkpoint import Checkpoints
from larvseg_jax.weights.record import Record

NAMES = ("background", "red", "green", "blue", "grey")
BASE, NOVEL = ("red", "green"), ("blue", "grey")
COLOURS = np.array([[20, 20, 20], [200, 40, 40], [40, 190, 60], [50, 60, 210], [120, 120, 120]], np.uint8)
MASKED, TAGGED, VALIDATION = 10, 8, 4
SIDE = 32


def write_data(root: Path) -> Path:
    """Writes `root`/tiny: coloured boxes on a dark ground, one or two to a picture."""
    folder = root / "tiny"
    for part in ("images", "masks"):
        (folder / part).mkdir(parents=True)
    rng = np.random.default_rng(0)
    splits: dict = {"train": [], "tagged": [], "val": [], "image_labels": {}}
    for i in range(MASKED + TAGGED + VALIDATION):
        stem = f"p{i:02d}"
        mask = np.zeros((SIDE, SIDE + 4), np.uint8)
        for label in rng.choice(np.arange(1, 5), size=2, replace=False):
            top, left = rng.integers(0, SIDE // 2, size=2)
            mask[top : top + 14, left : left + 14] = label
        pixels = COLOURS[mask] + rng.integers(0, 20, (*mask.shape, 3), dtype=np.uint8)
        Image.fromarray(pixels).save(folder / "images" / f"{stem}.png")
        Image.fromarray(mask).save(folder / "masks" / f"{stem}.png")
        split = "train" if i < MASKED else "tagged" if i < MASKED + TAGGED else "val"
        splits[split].append(stem)
        splits["image_labels"][stem] = [int(v) for v in np.unique(mask) if v]
    (folder / "classes.json").write_text(json.dumps({"names": NAMES, "ignore": 255, "background": 0}))
    (folder / "splits.json").write_text(json.dumps(splits))
    return folder


def get_config() -> ml_collections.ConfigDict:
    """16-pixel crops, a ViT of two layers."""
    config = common.get_config()
    config.name = "tiny"
    config.total_steps = 12
    config.log_every = 1
    config.data_threads = 2
    config.gallery = 2
    config.vocabulary = dict(classes=NAMES, base=BASE, novel=NOVEL, background="background", ignore_in_eval=())
    # Two layers, because drop path, the only random thing in the step, spares the first one.
    config.model.update(width=16, depth=2, num_heads=2, mlp_dim=32, patch_size=4, image_size=16)
    config.model.update(stem="conv", drop_path=0.3)
    config.method.gamma_init = 2.0
    photos = dict(batch_size=8, scale=(64, 16), ratio_range=(1.0, 1.5), crop_size=16)
    source = common.source(folder="tiny", split="train")
    config.streams.masks = common.mask_stream(**photos, source=source, classes=("background", *BASE))
    config.streams.tags = common.tag_stream(
        **photos,
        source=common.source(folder="tiny", split="tagged"),
        tags_from="image",
        always_tags=("background",),
        max_labels=4,
    )
    config.method.ca_classifier.update(memory_bank_size=3, foreground_topk=4, class_block=2)
    config.optimizer.update(common.from_scratch_optimizer())
    config.evals.val.update(
        source=common.source(folder="tiny", split="val"), scale=(64, 16), window=16, stride=8, every=6
    )
    config.checkpoint.every = 3
    return config


def save_untrained(config: ml_collections.ConfigDict, steps: Sequence[int] = (0,)) -> None:
    """Checkpoints of a run in its folder, of the same fresh weights at all these steps."""
    run, mesh = from_config(config), make_mesh(1, 1, jax.devices()[:1])
    state = assemble.fresh_state(run, mesh)
    record = Record.of(run.settings, run.vocabulary.classes, {}, assemble.state_layout(run, mesh))
    with Checkpoints(run.workdir) as checkpoints:
        for step in steps:
            checkpoints.save(record, state.replace(step=state.step * 0 + step), step, None)
