"""A method that knows colours: proposes the pixels of each, and takes a colour's name for the colour itself.

It is what pseudo labels need, proposals and an image-text model, without anything to learn.
"""

import dataclasses
from typing import Literal

import jax.numpy as jnp
import ml_collections

from configs import common
from data_pipelines.streams import StreamConfig
from data_pipelines.transforms import MEAN, STD
from data_pipelines.views import MaskView
from larvseg_jax.methods.method import Dense
from larvseg_jax.options import defaults
from tests import tiny

COLOURS = ((tiny.COLOURS - MEAN) / STD).astype("float32")
"""Of tiny.NAMES, as batches have them."""


@dataclasses.dataclass(frozen=True)
class Loss:
    """What a stream of masks adds."""


@dataclasses.dataclass(frozen=True)
class Config:
    """The section `method`."""

    name: Literal["tests.pseudo_labels.colours"] = "tests.pseudo_labels.colours"
    scale: float = 10.0  # of cosines of colours

    def loss_options(self, view: type) -> type:
        return Loss

    def make(self, task):
        return Colours(self, task)


def unit(x):
    return x / jnp.maximum(jnp.linalg.norm(x, axis=-1, keepdims=True), 1e-6)


class Colours:
    """See the module; a `Method`, and it `Proposes` and `ReadsText`."""

    def __init__(self, config, task):
        self.config, self.task = config, task

    def init(self, key):
        return {"colours": jnp.asarray(COLOURS)}, ()

    def loss(self, params, memory, batch, key):
        return jnp.zeros(()), ({}, ())

    def remember(self, memory, params, seen):
        return memory

    def proposals(self, params, memory, images):
        """At every second pixel 1 - the square of the distance to each colour."""
        colours = params["colours"][None, :, None, None]
        return 1.0 - jnp.sum((images[:, None, ::2, ::2] - colours) ** 2, axis=-1)

    def image_vectors(self, params, images):
        return unit(jnp.mean(images, axis=(1, 2)))

    def text_vectors(self, params, names, templates=""):
        return unit(params["colours"][jnp.array([tiny.NAMES.index(name) for name in names])])

    def caption_vectors(self, params, ids):
        return unit(params["colours"][ids[:, 0]])

    def logit_scale(self, params):
        return jnp.asarray(self.config.scale)

    def scorer(self, label_set):
        return Dense(lambda params, memory, images: self.embed(params, images)[..., : len(label_set)])

    def embed(self, params, images):
        return unit(images[:, ::4, ::4])

    def flops(self, data=1, model=1):
        return {}

    def figures(self, params, memory, label_set, windows, tags):
        return {}


def experiment(root, workdir, side):
    """A config of it on the tiny data, whose stream knows the masks of base classes alone; `side`: of its pictures."""
    config = tiny.get_config()
    config.data_root, config.workdir = str(root), str(workdir)
    config.model.update(depth=1, image_size=side)
    del config.streams["tags"]
    stream = ml_collections.ConfigDict(dict(kind="masks", **defaults(StreamConfig, MaskView, Loss)))
    source = common.source(folder="tiny", split="train")
    stream.update(source=source, batch_size=2, crop_size=16, classes=("background", *tiny.BASE))
    config.streams.masks = stream
    with config.unlocked():
        del config["method"]
        config.method = defaults(Config)
    config.mesh.rules = ()
    return config
