"""Readers of weights, with small valid files of each kind."""

from __future__ import annotations

import contextlib
import dataclasses
import hashlib
import io
import json
import struct
from collections.abc import Callable, Mapping
from pathlib import Path
from random import Random
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from flax import traverse_util
from safetensors import safe_open
from safetensors.numpy import save

from larvseg_jax.config import network_sections
from larvseg_jax.errors import UserError
from larvseg_jax.models.clip import Clip
from larvseg_jax.models.text import TextConfig
from larvseg_jax.models.vit import VisionTransformer
from larvseg_jax.models.vit_config import ViTConfig
from larvseg_jax.vocabulary import Vocabulary
from larvseg_jax.weights.augreg import read_augreg
from larvseg_jax.weights.clip_model import clip_model
from larvseg_jax.weights.learnt import all_weights, split_off
from larvseg_jax.weights.original import OriginalCheckpoint, vit_config
from larvseg_jax.weights.pretrained import check_pretrained, fit, read_weights
from larvseg_jax.weights.safetensors_file import SavedModel, load_safetensors, save_safetensors
from larvseg_jax.weights.stored_weights import POSITIONS
from tests.conftest import REPOSITORY
from tests.fuzz import mutations
from tests.fuzz.reader import Reader
from tests.weights.clip_writing import write_archive, write_clip
from tests.weights.pth_files import write_pth
from tests.weights.recordings import recording
from tests.weights.resnet_arrays import hugging_face_arrays, torchvision_arrays

_IDS = 60  # of a text tower: what is refused does not depend on them
_EXPORTED = REPOSITORY / "tests/data/version_0_1.safetensors"
_VIT = ViTConfig(width=8, depth=1, num_heads=2, mlp_dim=12, patch_size=4, image_size=12)
_DTYPES = {"float32": "F32", "float16": "F16", "bfloat16": "BF16", "int32": "I32", "int8": "I8"}


def _arrays() -> dict[str, np.ndarray]:
    """A backbone of one block, as AugReg files have it."""
    block, width = "Transformer/encoderblock_0", 8
    attention = f"{block}/MultiHeadDotProductAttention_1"
    shapes: dict[str, tuple[int, ...]] = {"cls": (1, 1, width), "embedding/kernel": (4, 4, 3, width)}
    shapes |= {POSITIONS.removeprefix("backbone/"): (1, 10, width), f"{attention}/out/kernel": (2, 4, width)}
    shapes |= {f"{attention}/{n}/kernel": (width, 2, 4) for n in ("query", "key", "value")}
    shapes |= {f"{attention}/query/bias": (2, 4), f"{block}/MlpBlock_3/Dense_0/bias": (12,)}
    rng = np.random.default_rng(0)
    return {name: rng.standard_normal(shape).astype(np.float32) for name, shape in shapes.items()}


def npz_reader() -> Reader:
    """AugReg files."""
    arrays = _arrays()
    wanted = {f"backbone/{name}": value.shape for name, value in arrays.items()}

    def saved(save: Callable[..., None], prefix: str = "", dtype: str = "float32") -> bytes:
        stream = io.BytesIO()
        save(stream, **{prefix + name: value.astype(dtype) for name, value in arrays.items()})
        return stream.getvalue()

    seeds = [saved(np.savez), saved(np.savez_compressed, "opt/target/"), saved(np.savez, "params/", "float16")]

    def read(content: bytes, folder: Path) -> None:
        path = folder / "x.npz"
        path.write_bytes(content)
        fit(read_augreg(path), wanted, _VIT, path)

    return Reader("npz", seeds, mutations.changed_zip(mutations.changed_npy), read, 14)


def pth_reader(folder: Path) -> Reader:
    """Files of PyTorch."""
    rng = np.random.default_rng(0)
    block = "backbone.layers.0"
    shapes = {"cls_token": (1, 1, 8), "pos_embed": (1, 10, 8), "patch_embed.projection.weight": (8, 3, 4, 4)}
    shapes = {f"backbone.{name}": shape for name, shape in shapes.items()}
    shapes |= {f"{block}.attn.attn.in_proj_weight": (24, 8), f"{block}.attn.attn.in_proj_bias": (24,)}
    shapes |= {f"{block}.attn.attn.out_proj.weight": (8, 8), f"{block}.ffn.layers.0.0.bias": (12,)}
    shapes |= {"decode_head.cls_emb": (3, 8), "decode_head.queue": (3, 2, 2, 8), "decode_head.gamma": (1,)}
    state = {name: rng.standard_normal(shape).astype(np.float32) for name, shape in shapes.items()}
    state |= {f"decode_head.{name}": np.ones(3, np.int64) for name in ("ptr", "full")}
    contents = ({"state_dict": state, "meta": {"epoch": 3}}, {f"module.{k}": v for k, v in state.items()})
    seeds = [write_pth(folder / "seed.pth", content).read_bytes() for content in contents]

    def read(content: bytes, folder: Path) -> None:
        path = folder / "x.pth"
        path.write_bytes(content)
        original = OriginalCheckpoint.open(path)
        stored = original.weights(("",) * min(original.class_rows, 9), 2)
        vit_config(stored.shapes, path)
        original.bank()

    return Reader(
        "pth", seeds, mutations.changed_zip(lambda rng, _, data: mutations.changed_bytes(rng, data)), read, 14
    )


def backbone_readers(folder: Path) -> list[Reader]:
    """Backbones of other implementations, in each kind of file."""
    names = ("hf_dinov2", "timm_deit_distilled", "facebook_dinov2", "hf5_dinov2_registers")
    recorded = [recording(name) for name in names]
    vit = ViTConfig(**recorded[0].options)
    side = vit.patch_size
    picture = jax.ShapeDtypeStruct((1, side, side, 3), "float32")
    layout = {"backbone": jax.eval_shape(VisionTransformer(vit).init, jax.random.key(0), picture)["params"]}
    changed = {
        ".npz": mutations.changed_zip(mutations.changed_npy),
        ".pth": mutations.changed_zip(lambda rng, _, data: mutations.changed_bytes(rng, data)),
        ".safetensors": mutations.changed_safetensors,
    }

    def reader(suffix: str) -> Reader:
        seeds = [each.write(folder / f"backbone{suffix}").read_bytes() for each in recorded]

        def read(content: bytes, own: Path) -> None:
            path = own / f"x{suffix}"
            path.write_bytes(content)
            check_pretrained(path, layout, vit, ())

        return Reader(f"backbone{suffix}", seeds, changed[suffix], read, 4)

    return [reader(suffix) for suffix in changed]


def resnet_reader(folder: Path) -> Reader:
    """A ResNet in both spellings."""
    small = torchvision_arrays((1, 1, 1, 1))
    seeds = [save(arrays) for arrays in (small, hugging_face_arrays(small))]
    valid = folder / "resnet.safetensors"
    valid.write_bytes(seeds[0])
    arrays = read_weights(valid, _VIT).arrays
    layout = traverse_util.unflatten_dict({name: jnp.asarray(value) for name, value in arrays.items()}, sep="/")

    def read(content: bytes, own: Path) -> None:
        path = own / "x.safetensors"
        path.write_bytes(content)
        check_pretrained(path, layout, _VIT, ())

    return Reader("resnet", seeds, mutations.changed_safetensors, read, 3)


def clip_readers(folder: Path) -> list[Reader]:
    """CLIPs, as weights to start from and as whole models."""
    options = dict(layer_norm_epsilon=1e-5, mlp="quick_gelu", norm_before=True, patch_bias=False, pixels="clip")
    vit = ViTConfig(16, 2, 1, 64, patch_size=8, image_size=32, **options)
    model = Clip(vit, TextConfig(8, 2, 1, 32), 12, _IDS, 20)
    arguments = jax.ShapeDtypeStruct((1, 8, 8, 3), "float32"), jax.ShapeDtypeStruct((1, 2), "int32")
    layout = jax.eval_shape(model.init, jax.random.key(0), *arguments)["params"]
    changed = {
        ".pt": mutations.changed_zip(lambda rng, _, data: mutations.changed_bytes(rng, data)),
        ".safetensors": mutations.changed_safetensors,
    }

    def reader(suffix: str) -> Reader:
        write = write_archive if suffix == ".pt" else write_clip
        seeds = [write(folder / f"clip{suffix}", ids=_IDS).read_bytes()]

        def read(content: bytes, own: Path) -> None:
            path = own / f"quickgelu{suffix}"
            path.write_bytes(content)
            with contextlib.suppress(UserError):  # that it is of other ids, at least
                clip_model(path)
            check_pretrained(path, layout, vit, ())

        return Reader(f"clip{suffix}", seeds, changed[suffix], read, 4)

    return [reader(suffix) for suffix in changed]


def stored_safetensors(path: Path = _EXPORTED) -> tuple[dict[str, np.ndarray], dict[str, str]]:
    """Arrays and metadata of an exported file, by default that of version 0.1, without its digest."""
    with safe_open(path, framework="numpy") as file:
        metadata = dict(sorted(file.metadata().items()))
        arrays = {name: file.get_tensor(name) for name in sorted(file.keys())}
    metadata.pop("digest")
    return arrays, metadata


def signed_safetensors(arrays: Mapping[str, np.ndarray], metadata: Mapping[str, str]) -> bytes:
    """A file with a digest that is right, as a hostile writer can make it."""
    sha = hashlib.sha256(json.dumps(sorted(metadata.items())).encode())
    header: dict[str, Any] = {}
    data = b""
    for name, value in sorted(arrays.items()):
        sha.update(f"{name} {value.dtype} {value.shape}".encode() + value.tobytes())
        offsets = [len(data), len(data) + value.nbytes]
        header[name] = {"dtype": _DTYPES[str(value.dtype)], "shape": list(value.shape), "data_offsets": offsets}
        data += value.tobytes()
    header["__metadata__"] = {**metadata, "digest": sha.hexdigest()}
    text = json.dumps(header).encode()
    return struct.pack("<Q", len(text)) + text + data


def _changed_model(arrays_stored: Mapping[str, np.ndarray], metadata_stored: Mapping[str, str]) -> mutations.Mutation:
    """Exported models with other arrays or metadata; half of the time with a digest that is right."""

    def mutate(rng: Random, data: bytes) -> bytes:
        if rng.random() < 0.5:
            return mutations.changed_safetensors(rng, data)
        arrays, metadata = dict(arrays_stored), dict(metadata_stored)
        key = rng.choice(list(metadata))
        try:
            metadata[key] = mutations.changed_json(rng, metadata[key].encode()).decode("utf-8", "replace")
        except ValueError:  # of a text that is no JSON
            metadata[key] = rng.choice(("", "x", "a\nb", "larvseg_jax 1", "larvseg_jax 2", "larvseg_jax 3"))
        if rng.random() < 0.3:
            del metadata[rng.choice(list(metadata))]
        if rng.random() < 0.3:
            name = rng.choice(list(arrays))
            one = arrays[name][None]
            arrays[name] = rng.choice((np.zeros((), np.float32), np.zeros(3, np.int8), one, one.astype(jnp.bfloat16)))
        return signed_safetensors(arrays, metadata)

    return mutate


def _read_model(path: Path) -> tuple[SavedModel, ViTConfig]:
    """An exported model and its network, as trained.load_trained reads them."""
    saved = load_safetensors(path)
    about = saved.metadata
    Vocabulary(about.classes, about.base, about.novel, about.background)
    try:
        return saved, network_sections(about.settings)[1]
    except KeyError as error:
        raise UserError(f"no section {error}") from error


def safetensors_reader() -> Reader:
    """Exported models."""

    def read(content: bytes, folder: Path) -> None:
        path = folder / "x.safetensors"
        path.write_bytes(content)
        _read_model(path)

    return Reader("safetensors", [_EXPORTED.read_bytes()], _changed_model(*stored_safetensors()), read, 12)


def learnt_reader(folder: Path) -> Reader:
    """Exported files of what was learnt alone; the pretrained file is as it should be."""
    saved, vit = _read_model(_EXPORTED)
    pretrained, seed = folder / "pretrained.npz", folder / "learnt.safetensors"
    backbone = {name: x for name, x in saved.params.items() if name.startswith("backbone/") and "norm" not in name}
    np.savez(pretrained, **{name.removeprefix("backbone/"): x for name, x in backbone.items()})
    learnt = split_off(saved.params, pretrained, vit, _EXPORTED)
    metadata = dataclasses.replace(saved.metadata, frozen=learnt.frozen, pretrained=learnt.source)
    save_safetensors(seed, SavedModel(learnt.arrays, {}, metadata))

    def read(content: bytes, own: Path) -> None:
        path = own / "x.safetensors"
        path.write_bytes(content)
        found, network = _read_model(path)
        if found.metadata.frozen:
            all_weights(found, path, pretrained, network)

    stored = stored_safetensors(seed)
    # Not the file itself: the library writes metadata in any order.
    return Reader("learnt", [signed_safetensors(*stored)], _changed_model(*stored), read, 4)
