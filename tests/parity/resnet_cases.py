"""resnet_*: the maps of a ResNet under the names of Hugging Face Transformers, through the reader of its files."""

from __future__ import annotations

import functools
from pathlib import Path

import jax
import jax.numpy as jnp
from flax import traverse_util

from larvseg_jax.models.resnet import ResNet, ResNetConfig
from larvseg_jax.weights.resnet_files import read_resnet
from tests.parity.golden import Golden, channels_first, channels_last
from tests.parity.table import Report


def model_of(golden: Golden) -> ResNet:
    """With the sizes of the recording."""
    stem = len(golden["w/embedder.embedder.convolution.weight"])
    depths = tuple(golden["cfg/depths"].tolist())
    return ResNet(ResNetConfig(depths, stem, int(golden["cfg/widths"][0]) // 4))


def parameters(arrays):
    """Of arrays under the names of others."""
    stored = read_resnet({name: functools.partial(arrays.__getitem__, name) for name in arrays}, Path("golden.npz"))
    assert not stored.left_out
    flat = {name.removeprefix("backbone/"): jnp.asarray(value) for name, value in stored.arrays.items()}
    return traverse_util.unflatten_dict(flat, sep="/")


def check_resnet(report: Report, golden: Golden) -> None:
    """The four maps; an error of the stem is one of all of them."""
    model, params = model_of(golden), parameters(golden.part("w/"))
    images = jnp.asarray(channels_last(golden["in/image"]))

    found = jax.jit(lambda params, images: model.apply({"params": params}, images))(params, images)
    for stage, values in enumerate(found, 1):
        report.array(f"stage_{stage}", channels_first(values), golden[f"out/stage_{stage}"])


RESNET_CASES = {"resnet": check_resnet}
