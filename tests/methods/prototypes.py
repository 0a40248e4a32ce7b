"""A second, tiny method, to prove that a method needs no edit in the package: softmax with running class prototypes.

A ViT and a linear classifier learn from masks. The memory is the running mean feature of every class; the classes of a
picture are those whose prototypes its features are most like. The module is also its config:
python train.py --config=tests/methods/prototypes.py.
"""

from __future__ import annotations

import dataclasses
from typing import Annotated, Literal

import jax
import jax.numpy as jnp
import ml_collections
from flax import linen as nn

from data_pipelines.streams import StreamConfig
from data_pipelines.views import MaskView
from larvseg_jax.errors import UserError
from larvseg_jax.methods.method import Linear, Vectors
from larvseg_jax.models.vit import VisionTransformer
from larvseg_jax.options import Least, defaults
from tests import tiny

IGNORE = -1


@dataclasses.dataclass(frozen=True)
class Loss:
    """What a stream of masks adds."""

    weight: float = 1.0


@dataclasses.dataclass(frozen=True)
class Config:
    """The section `method`."""

    name: Literal["tests.methods.prototypes"] = "tests.methods.prototypes"
    momentum: Annotated[float, Least(0)] = 0.9  # what the old prototype counts for

    def loss_options(self, view: type) -> type:
        if view is not MaskView:
            raise UserError("prototypes learn from masks")
        return Loss

    def make(self, task):
        return Prototypes(self, task)


class Network(nn.Module):
    """Patch features, and a row of weights for every class."""

    task: object

    @nn.compact
    def __call__(self, images, *, train: bool = False):
        features = VisionTransformer(self.task.backbone, name="backbone")(images, train=train).patches
        weights = self.param("weights", nn.initializers.normal(0.1), (self.task.rows, features.shape[-1]))
        return features, weights


class Prototypes:
    """See the module."""

    def __init__(self, config, task):
        self.config, self.task, self.network = config, task, Network(task)

    def init(self, key):
        side, width = self.task.backbone.image_size, self.task.backbone.width
        params = self.network.init(key, jnp.zeros((1, side, side, 3)))["params"]
        return params, {"prototypes": jnp.zeros((self.task.rows, width)), "seen": jnp.zeros(self.task.rows, jnp.int32)}

    def loss(self, params, memory, batch, key):
        total, metrics, seen = jnp.zeros(()), {}, []
        for name, stream in self.task.streams.items():
            arrays = batch[name]
            rngs = {"drop_path": key}
            features, weights = self.network.apply({"params": params}, arrays["image"], train=True, rngs=rngs)
            step = arrays["label"].shape[1] // features.shape[1]
            label = arrays["label"][:, ::step, ::step]
            logits = features @ weights[jnp.asarray(stream.label_set.rows)].T
            counted = (label != IGNORE) & arrays["valid"][:, None, None]
            picked = jnp.take_along_axis(jax.nn.log_softmax(logits), jnp.maximum(label, 0)[..., None], -1)[..., 0]
            loss = -jnp.sum(jnp.where(counted, picked, 0.0)) / jnp.maximum(jnp.sum(counted), 1).astype(logits.dtype)
            total += stream.loss.weight * loss
            metrics[f"{name}/L_softmax"] = loss
            row = jnp.where(counted, jnp.asarray(stream.label_set.rows)[jnp.maximum(label, 0)], self.task.rows)
            seen.append((row.reshape(-1), features.reshape(-1, features.shape[-1])))
        return total, (metrics, seen)

    def remember(self, memory, params, seen):
        for row, features in seen:
            members = jax.nn.one_hot(row, self.task.rows)  # a row out of range is no class
            count = members.sum(0)
            mean = (members.T @ features) / jnp.maximum(count, 1.0)[:, None]
            old = self.config.momentum * memory["prototypes"] + (1 - self.config.momentum) * mean
            new = jnp.where((memory["seen"] > 0)[:, None], old, mean)
            prototypes = jnp.where((count > 0)[:, None], new, memory["prototypes"])
            memory = {"prototypes": prototypes, "seen": memory["seen"] + count.astype(jnp.int32)}
        return memory

    def scorer(self, label_set):
        def vectors(params, memory):
            chosen = memory["prototypes"][jnp.asarray(label_set.rows)]
            return Vectors(unit(chosen), jnp.asarray(label_set.multiplicity), jnp.zeros(()))

        def embed(params, memory, images):
            return self.embed(params, images)

        def scores(params, memory, images):
            return embed(params, memory, images) @ vectors(params, memory).vectors.T

        return Linear(scores, vectors, embed, reads_memory=True)

    def embed(self, params, images):
        return unit(self.network.apply({"params": params}, images)[0])

    def flops(self, data=1, model=1):
        return {}

    def figures(self, params, memory, label_set, windows, tags):
        return {}


def unit(x):
    return x / jnp.maximum(jnp.linalg.norm(x, axis=-1, keepdims=True), 1e-6)


def get_config() -> ml_collections.ConfigDict:
    """The tiny data set, masks only."""
    config = tiny.get_config()
    config.name = "prototypes"
    masks = config.streams.masks
    del config.streams["tags"]
    stream = ml_collections.ConfigDict(dict(kind="masks", **defaults(StreamConfig, MaskView, Loss)))
    stream.update({name: value for name, value in masks.items() if name in stream})
    config.streams.masks = stream
    with config.unlocked():
        del config["method"]
        config.method = defaults(Config)
    config.mesh.rules = ()
    return config
