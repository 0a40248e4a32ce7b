"""Runs on frozen weights without a training, and the files that their weights lie in."""

import dataclasses
import re

import jax
import numpy as np
from flax import traverse_util
from safetensors.numpy import save_file

from larvseg_jax.assemble import state_layout
from larvseg_jax.config import from_config
from larvseg_jax.devices.mesh import make_mesh
from larvseg_jax.weights.checkpoint import Checkpoints
from larvseg_jax.weights.record import Record
from larvseg_jax.weights.safetensors_file import SavedModel, load_safetensors, save_safetensors
from tests import tiny

FROZEN = "^backbone/(?!Transformer/encoder_norm/)"
POSITIONS = "backbone/Transformer/posembed_input/pos_embedding"


def config_of(folder, pretrained, **changes):
    config = tiny.get_config()
    config.workdir, config.pretrained = str(folder / "run"), str(pretrained)
    config.model.update(stem="patch", drop_path=0.0)
    config.optimizer.frozen = FROZEN
    config.update_from_flattened_dict(changes)
    return config


def random_parameters(run, seed):
    """Path -> float32 array, every number another."""
    rng = np.random.default_rng(seed)
    layout = traverse_util.flatten_dict(state_layout(run, make_mesh(1, 1, jax.devices()[:1])).params, sep="/")
    return {path: rng.standard_normal(x.shape).astype(np.float32) / 3 for path, x in layout.items()}


def write_backbone(path, parameters):
    """An .npz file with the names of AugReg's, or the same in a file of safetensors under those of timm."""
    own = {name.removeprefix("backbone/"): x for name, x in parameters.items() if name.startswith("backbone/")}
    if path.suffix == ".npz":
        np.savez(path, **own)
        return path
    found = {"cls_token": own["cls"], "pos_embed": own[POSITIONS.removeprefix("backbone/")]}
    found["patch_embed.proj.weight"] = own["embedding/kernel"].transpose(3, 2, 0, 1)
    found["patch_embed.proj.bias"] = own["embedding/bias"]
    for kind, theirs in (("scale", "weight"), ("bias", "bias")):
        found[f"norm.{theirs}"] = own[f"Transformer/encoder_norm/{kind}"]
    for i in range(2):
        block, name = f"Transformer/encoderblock_{i}/", f"blocks.{i}."
        attention, width = f"{block}MultiHeadDotProductAttention_1/", own["cls"].shape[-1]
        parts = [own[f"{attention}{part}/kernel"].reshape(width, width).T for part in ("query", "key", "value")]
        found[f"{name}attn.qkv.weight"] = np.concatenate(parts)
        parts = [own[f"{attention}{part}/bias"].ravel() for part in ("query", "key", "value")]
        found[f"{name}attn.qkv.bias"] = np.concatenate(parts)
        found[f"{name}attn.proj.weight"] = own[f"{attention}out/kernel"].reshape(width, width).T
        found[f"{name}attn.proj.bias"] = own[f"{attention}out/bias"]
        for layer, theirs in (("LayerNorm_0", "norm1"), ("LayerNorm_2", "norm2")):
            found[f"{name}{theirs}.weight"] = own[f"{block}{layer}/scale"]
            found[f"{name}{theirs}.bias"] = own[f"{block}{layer}/bias"]
        for layer, theirs in (("Dense_0", "mlp.fc1"), ("Dense_1", "mlp.fc2")):
            found[f"{name}{theirs}.weight"] = own[f"{block}MlpBlock_3/{layer}/kernel"].T
            found[f"{name}{theirs}.bias"] = own[f"{block}MlpBlock_3/{layer}/bias"]
    save_file({key: np.ascontiguousarray(value) for key, value in found.items()}, path)
    return path


def write_run(config, parameters):
    """A run with a checkpoint of step 3 of these parameters."""
    run, mesh = from_config(config), make_mesh(1, 1, jax.devices()[:1])
    params = traverse_util.unflatten_dict(parameters, sep="/")
    layout = state_layout(run, mesh)
    zeros = jax.tree.map(lambda x: np.zeros(x.shape, x.dtype), layout)
    state = dataclasses.replace(zeros, params=params)
    state = jax.tree.map(lambda x, to: jax.device_put(x, to.sharding), state, layout)
    with Checkpoints(run.workdir) as checkpoints:
        checkpoints.save(Record.of(run.settings, run.vocabulary.classes, {}, state), state, 3, 0.1)
    return run.workdir


def learnt_names(parameters):
    return {name for name in parameters if not re.search(FROZEN, name)}


def rounded(parameters):
    """What was learnt as float16 holds it, cut to the rows of classes; the rest as it is."""
    found = {}
    for name, value in parameters.items():
        own = value[: len(tiny.NAMES)] if name == "head/class_embeddings" else value
        found[name] = own.astype(np.float16).astype(np.float32) if name in learnt_names(parameters) else own
    return found


def write_rounded(folder, file, parameters):
    """A whole exported model of the rounded parameters."""
    metadata = dataclasses.replace(load_safetensors(folder / "head.safetensors").metadata, frozen={}, pretrained="")
    save_safetensors(file, SavedModel(rounded(parameters), {}, metadata))
    return file
