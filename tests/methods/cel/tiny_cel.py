"""A tiny CEL, proposals and labels of noise for it; and a whole run of one on the tiny data."""

import types
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from configs import common
from configs.cel import parts
from larvseg_jax import assemble
from larvseg_jax.config import from_config
from larvseg_jax.devices.mesh import make_mesh
from larvseg_jax.methods.cel import Config
from larvseg_jax.methods.cel.network import Proposed
from larvseg_jax.methods.cel.supervision import Labels
from larvseg_jax.options import read
from larvseg_jax.text.vectors import write_text_vectors
from larvseg_jax.train import train
from tests import tiny

QUERIES, TEXT_WIDTH, CLASSES = 6, 8, 5
OPTIONS = dict(
    text=dict(vectors="text.npz", width=TEXT_WIDTH),
    temperature=0.2,
    decoder=dict(queries=QUERIES, layers=1, width=16, num_heads=2, mlp_dim=16, mask_width=8, masks_per_patch=2),
    mask=dict(points=8),
)


def config_of(**sections):
    """The tiny one with sections changed: config_of(rank=dict(weight=0.0))."""
    mine = {name: {**OPTIONS.get(name, {}), **of} if isinstance(of, dict) else of for name, of in sections.items()}
    return read(Config, OPTIONS | mine, "method")


def unit(x):
    return x / np.linalg.norm(x, axis=-1, keepdims=True)


def proposals(outputs=2, pictures=3, seed=0):
    """Vectors of classes and masks, and the unit vectors of CLASSES classes and of "no object"."""
    rng = np.random.default_rng(seed)
    vectors = unit(rng.normal(size=(outputs, pictures, QUERIES, TEXT_WIDTH)))
    mask_vectors = rng.normal(size=(outputs, pictures, QUERIES, TEXT_WIDTH))
    features = rng.normal(size=(pictures, 8, 8, TEXT_WIDTH))
    text = unit(rng.normal(size=(CLASSES + 1, TEXT_WIDTH)))
    *proposed, text = (jnp.asarray(x, jnp.float32) for x in (vectors, mask_vectors, features, text))
    return Proposed(*proposed), text[:-1], text[-1]


def labels():
    """Three pictures: classes 0 and 2 with masks and 4 without; class 1 alone; one that only fills up."""
    pixels = np.full((3, 8, 8), -1, np.int32)
    pixels[0, :4], pixels[0, 4:, :5] = 2, 0
    pixels[1, :, 2:6] = 1
    pixels[2, :, :] = 3
    tags = np.array([[0, 2, 4], [1, -1, -1], [3, -1, -1]], np.int32)
    return Labels(jnp.asarray(pixels), jnp.asarray(tags), jnp.array([True, True, False]))


def write_data(root):
    """The tiny data, and vectors of its classes' names."""
    tiny.write_data(root)
    vectors = unit(np.random.default_rng(2).normal(size=(len(tiny.NAMES), 6))).astype(np.float32)
    write_text_vectors(root / "text.npz", tiny.NAMES, vectors)


def trained_on_one_device(config):
    """The folder of a run on one device, which is compiled sooner than on eight."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(assemble, "mesh_of", lambda run: make_mesh(1, 1, jax.devices()[:1]))
        train(from_config(config))
    return Path(config.workdir)


def experiment(root, workdir, steps=2, **arguments):
    """A short run of either stage on what `write_data` has written; `arguments`: of configs/cel/parts.py."""
    config = parts.experiment("cel_tiny", str(root / "text.npz"), 6)
    config.data_root, config.workdir = str(root), str(workdir)
    config.vocabulary.update(classes=tiny.NAMES, base=tiny.BASE, novel=tiny.NOVEL, background="background")
    config.model.update(width=16, depth=1, num_heads=2, mlp_dim=16, patch_size=4, image_size=16)
    config.method.decoder.update(queries=5, layers=1, width=16, num_heads=2, mlp_dim=16, mask_width=8)
    config.method.decoder.masks_per_patch, config.method.mask.points = 2, 8
    given = types.SimpleNamespace(**parts.ARGUMENTS | arguments)
    source = common.source(folder="tiny", split="train")
    sizes = dict(batch_size=4, scale=(64, 16), crop_size=16)
    parts.photos(config, given, tiny.NOVEL, source=source, classes=tiny.NAMES, **sizes)
    config.optimizer.update(common.from_scratch_optimizer())
    source = common.source(folder="tiny", split="val")
    config.evals.val.update(source=source, scale=(64, 16), window=16, stride=8, batch_size=4, every=steps)
    config.total_steps, config.log_every, config.data_threads, config.gallery = steps, 1, 0, 1
    config.checkpoint.every = steps // 2
    return config
