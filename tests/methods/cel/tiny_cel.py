"""A tiny CEL, proposals and labels of noise for it."""

import jax.numpy as jnp
import numpy as np

from larvseg_jax.methods.cel import Config
from larvseg_jax.methods.cel.network import Proposed
from larvseg_jax.methods.cel.supervision import Labels
from larvseg_jax.options import read

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
    """Vectors and masks, and the unit vectors of CLASSES classes and of "no object"."""
    rng = np.random.default_rng(seed)
    vectors = unit(rng.normal(size=(outputs, pictures, QUERIES, TEXT_WIDTH)))
    masks = 3 * rng.normal(size=(outputs, pictures, QUERIES, 8, 8))
    text = unit(rng.normal(size=(CLASSES + 1, TEXT_WIDTH)))
    vectors, masks, text = (jnp.asarray(x, jnp.float32) for x in (vectors, masks, text))
    return Proposed(vectors, masks), text[:-1], text[-1]


def labels():
    """Three pictures: classes 0 and 2 with masks and 4 without; class 1 alone; one that only fills up."""
    pixels = np.full((3, 8, 8), -1, np.int32)
    pixels[0, :4], pixels[0, 4:, :5] = 2, 0
    pixels[1, :, 2:6] = 1
    pixels[2, :, :] = 3
    tags = np.array([[0, 2, 4], [1, -1, -1], [3, -1, -1]], np.int32)
    return Labels(jnp.asarray(pixels), jnp.asarray(tags), jnp.array([True, True, False]))
