"""Files of weights that are damaged on purpose: one line that names the file, and memory in proportion to its size."""

import io
import json
import re
import struct
import zipfile
from pathlib import Path

import jax.numpy as jnp
import numpy as np
import pytest
from safetensors.numpy import load_file, save_file

from larvseg_jax.errors import UserError
from larvseg_jax.models.vit_config import ViTConfig
from larvseg_jax.weights.augreg import read_augreg
from larvseg_jax.weights.original import OriginalCheckpoint, vit_config
from larvseg_jax.weights.pretrained import fit
from larvseg_jax.weights.safetensors_file import load_safetensors
from larvseg_jax.weights.stored_weights import POSITIONS, StoredWeights
from larvseg_jax.weights.torch_file import read_state_dict
from tests.conftest import REPOSITORY
from tests.fuzz.weights import signed_safetensors, stored_safetensors
from tests.weights.pth_files import TINY, Raw, call, opcodes, write_pth

EXPORTED = REPOSITORY / "tests/data/version_0_1.safetensors"


def npy(value, header=None):
    """A .npy file, with another header if one is given."""
    stream = io.BytesIO()
    np.save(stream, value)
    content = stream.getvalue()
    if header is None:
        return content
    return b"\x93NUMPY\x01\x00" + struct.pack("<H", len(header)) + header + content[-value.nbytes :]


def npz(path, members, compression=zipfile.ZIP_STORED):
    with zipfile.ZipFile(path, "w", compression) as archive:
        for name, content in members:
            archive.writestr(name, content)
    return path


def refused(read, path, message):
    with pytest.raises(UserError, match=message) as caught:
        read(path)
    assert str(path) in str(caught.value)
    assert "\n" not in str(caught.value)
    assert len(str(caught.value)) < 600


NPZ = {
    "bomb": (lambda p: npz(p, [("cls.npy", bytes(2**28))], zipfile.ZIP_DEFLATED), "it declares 268.4 MB"),
    "unbounded packing": (lambda p: npz(p, [("cls.npy", npy(np.zeros(3)))], zipfile.ZIP_BZIP2), "nor deflated"),
    "huge shape": (
        lambda p: npz(
            p, [("cls.npy", npy(np.zeros(3), b"{'descr':'<f8','fortran_order':False,'shape':(1099511627776,)}\n"))]
        ),
        "cannot read",
    ),
    "negative shape": (
        lambda p: npz(p, [("cls.npy", npy(np.zeros(3), b"{'descr':'<f8','fortran_order':False,'shape':(-3,)}\n"))]),
        "cannot read",
    ),
    "no header": (lambda p: npz(p, [("cls.npy", npy(np.zeros(3), b"{" * 500 + b"\n"))]), "cannot read"),
    "no array": (lambda p: npz(p, [("README", b"how to use these weights")]), "cannot read"),
    "objects": (lambda p: npz(p, [("cls.npy", npy(np.array([{}], object)))]), "cannot read"),
}


@pytest.mark.parametrize(("write", "message"), NPZ.values(), ids=NPZ)
def test_npz_files_are_refused_in_one_line(tmp_path, write, message):
    refused(read_augreg, write(tmp_path / "x.npz"), message)


@pytest.mark.filterwarnings("ignore:Duplicate name")
def test_an_array_that_is_there_twice_is_refused(tmp_path):
    both = [("cls.npy", npy(np.zeros(3))), ("cls.npy", npy(np.ones(3)))]
    refused(read_augreg, npz(tmp_path / "x.npz", both), "holds 'cls.npy' twice")


def test_a_member_that_unpacks_to_more_than_it_declares_is_refused(tmp_path):
    """The size in the table of contents is changed, the packed bytes are not."""
    path = npz(tmp_path / "x.npz", [("cls.npy", npy(np.zeros(2**16)))], zipfile.ZIP_DEFLATED)
    size, content = struct.pack("<I", 2**19 + 128), path.read_bytes()
    assert content.count(size) == 2
    path.write_bytes(content.replace(size, struct.pack("<I", 1000)))
    refused(read_augreg, path, "cannot read")


@pytest.mark.parametrize("name", ["cls", POSITIONS.removeprefix("backbone/"), "embedding/kernel"])
@pytest.mark.parametrize("shape", [(), (8,), (1, 8, 8, 8, 8)])
def test_an_array_of_any_shape_is_called_a_difference(name, shape):
    block = "Transformer/encoderblock_0/"
    wanted = {"cls": (1, 1, 8), "embedding/kernel": (4, 4, 3, 8), POSITIONS.removeprefix("backbone/"): (1, 10, 8)}
    wanted |= {f"{block}MultiHeadDotProductAttention_1/query/bias": (2, 4), f"{block}MlpBlock_3/Dense_0/bias": (8,)}
    wanted = {f"backbone/{key}": value for key, value in wanted.items()}
    arrays = {key: np.zeros(value, np.float32) for key, value in wanted.items()}
    arrays[f"backbone/{name}"] = np.zeros(shape, np.float32)
    with pytest.raises(UserError, match=f"wrong shape: .*backbone/{name} {re.escape(str(shape))}"):
        fit(StoredWeights("x", arrays), wanted, ViTConfig(patch_size=4, image_size=12), Path("x.npz"))


def test_sizes_that_no_vit_has_are_refused(tmp_path):
    shapes = {POSITIONS: (1, 0, 8), "backbone/embedding/kernel": (4, 4, 3, 8)}
    block = "backbone/Transformer/encoderblock_0/"
    shapes |= {f"{block}MultiHeadDotProductAttention_1/query/bias": (2, 4), f"{block}MlpBlock_3/Dense_0/bias": (8,)}
    for wrong in ({}, {POSITIONS: (1, 10, 8), "backbone/embedding/kernel": (0, 4, 3, 8)}):
        refused(lambda path, wrong=wrong: vit_config(shapes | wrong, path), tmp_path, "has no ViT of the original")


def tensor(shape, strides, count=2, offset=0):
    storage = Raw(opcodes(("storage", Raw(b"ctorch\nFloatStorage\n"), "0", "cpu", count)) + b"Q")
    return call("torch._utils", "_rebuild_tensor_v2", storage, offset, shape, strides, False, {})


def pth(content):
    data = {"archive/data/0": bytes(8)}
    return lambda path: write_pth(path, content, data)


PTH = {
    "memo of gigabytes": pth({"x": Raw(b"K\x01r\xff\xff\xff\x7f"), "w": tensor((2,), (1,))}),
    "deep key": pth({"x": Raw(b"}K\x01" + b"\x85" * 2**18 + b"K\x02s"), "w": tensor((2,), (1,))}),
    "copies": pth(
        {"x": Raw(b"ccollections\nOrderedDict\n(](K\x01K\x02\x86K\x03K\x04\x86ltR"), "w": tensor((2,), (1,))}
    ),
    "shape of text": pth({"backbone.cls_token": tensor("abc", (1, 1, 1))}),
    "shape of nothing": pth({"backbone.cls_token": tensor((1, 1, None), (1, 1, 1))}),
    "negative shape": pth({"backbone.cls_token": tensor((1, 1, -2), (1, 1, 1))}),
    "endless shape": pth({"backbone.cls_token": tensor((1, 1, 2**70), (1, 1, 1))}),
    "claims a terabyte": pth({"backbone.cls_token": tensor((1, 1, 2**38), (0, 0, 0))}),
    "two of one name": pth({"w": tensor((2,), (1,)), "module.w": tensor((2,), (1,))}),
}


@pytest.mark.parametrize("write", PTH.values(), ids=PTH)
def test_pth_files_are_refused_in_one_line(tmp_path, write):
    refused(OriginalCheckpoint.open, write(tmp_path / "x.pth"), "cannot read|is damaged")


def test_a_storage_that_many_tensors_share_is_not_copied_for_each(tmp_path):
    """Two megabytes on disk, two terabytes in memory."""
    big = tensor((2**19,), (1,), count=2**19)
    content = {f"backbone.{i}": big for i in range(1000)}
    path = write_pth(tmp_path / "x.pth", content, {"archive/data/0": bytes(2**21)})
    refused(read_state_dict, path, "its tensors are 2.1 GB, in a file of 2.[0-9] MB")


def test_arrays_of_no_dimension_are_refused(tmp_path):
    state = {name: t.read() for name, t in read_state_dict(TINY).items()}
    for name in ("backbone.layers.0.attn.attn.out_proj.weight", "backbone.layers.0.attn.attn.in_proj_bias"):
        path = write_pth(tmp_path / "x.pth", state | {name: np.zeros((), np.float32)})
        refused(lambda path: OriginalCheckpoint.open(path).weights(("",) * 247, 2), path, f"{name} has shape \\(\\)")


def header_of(changes):
    """The exported file with some entries of its header changed."""

    def write(path):
        content = EXPORTED.read_bytes()
        (length,) = struct.unpack("<Q", content[:8])
        header = json.dumps(changes(json.loads(content[8 : 8 + length]))).encode()
        path.write_bytes(struct.pack("<Q", len(header)) + header + content[8 + length :])

    return write


def with_entry(name, **values):
    return header_of(lambda header: header | {name: header[name] | values})


def digested(changes):
    """A file whose digest is right, although the rest is not."""

    def write(path):
        arrays, metadata = stored_safetensors()
        changes(arrays, metadata)
        path.write_bytes(signed_safetensors(arrays, metadata))

    return write


GAMMA = "head/gamma"
SAFETENSORS = {
    "endless header": lambda path: path.write_bytes(struct.pack("<Q", 2**63) + b"{}"),
    "header beyond the file": lambda path: path.write_bytes(struct.pack("<Q", 2**30) + b"{}"),
    "overlap": with_entry(GAMMA, data_offsets=[0, 4]),
    "out of range": with_entry(GAMMA, data_offsets=[2**40, 2**40 + 4]),
    "negative shape": with_entry(GAMMA, shape=[-1]),
    "absurd shape": with_entry(GAMMA, shape=[2**62, 2**62]),
    "unknown dtype": with_entry(GAMMA, dtype="X7"),
    "metadata of numbers": header_of(lambda header: header | {"__metadata__": {"step": 3}}),
    "metadata is a list": header_of(lambda header: header | {"__metadata__": []}),
    "an array is missing": header_of(lambda header: {k: v for k, v in header.items() if k != GAMMA}),
    "classes are a text": digested(lambda arrays, metadata: metadata.update(classes='"abc"')),
    "classes are numbers": digested(lambda arrays, metadata: metadata.update(classes="[0, 1, 2, 3, 4]")),
    "settings are a list": digested(lambda arrays, metadata: metadata.update(settings="[1]")),
    "settings nested too deep": digested(lambda arrays, metadata: metadata.update(settings="[" * 100_000)),
    "step is a text": digested(lambda arrays, metadata: metadata.update(step='"x"')),
    "streams are a list": digested(lambda arrays, metadata: metadata.update(settings='{"streams": [1]}')),
    "one embedding": digested(lambda arrays, _: arrays.update({"head/class_embeddings": np.zeros((), np.float32)})),
    "bfloat16": digested(lambda arrays, _: arrays.update({"head/class_embeddings": np.zeros((9, 8), jnp.bfloat16)})),
}


@pytest.mark.parametrize("write", SAFETENSORS.values(), ids=SAFETENSORS)
def test_safetensors_files_are_refused_in_one_line(tmp_path, write):
    write(tmp_path / "x.safetensors")
    refused(load_safetensors, tmp_path / "x.safetensors", "cannot read|damaged|anew")


def test_the_unchanged_file_is_read(tmp_path):
    """What the damaged ones above are made of."""
    header_of(lambda header: header)(tmp_path / "x.safetensors")
    digested(lambda *_: None)(tmp_path / "y.safetensors")
    for name in ("x.safetensors", "y.safetensors"):
        assert load_safetensors(tmp_path / name).params.keys() <= load_file(EXPORTED).keys()


FAMILIES = {
    "timm": ["blocks.0.attn.qkv.weight", "cls_token", "patch_embed.proj.weight"],
    "timm ": ["encoder.blocks.0.norm1.weight"],
    "Hugging Face": ["vit.embeddings.cls_token", "vit.encoder.layer.0.attention.attention.query.weight"],
    "torchvision": ["conv_proj.weight", "encoder.layers.encoder_layer_0.ln_1.weight", "class_token"],
    "CLIP": ["visual.conv1.weight", "visual.transformer.resblocks.0.ln_1.weight", "token_embedding.weight"],
    "big_vision": ["params/pos_embedding", "params/Transformer/encoder_norm/scale", "params/embedding/kernel"],
    "mmpretrain": ["backbone.layers.0.ln1.weight", "backbone.patch_embed.projection.weight"],
}


@pytest.mark.parametrize(("family", "names"), FAMILIES.items(), ids=FAMILIES)
def test_weights_of_others_are_called_what_they_are(tmp_path, family, names):
    arrays = {name: np.zeros((1, 3), np.float32) for name in names}
    np.savez(tmp_path / "x.npz", **arrays)
    save_file(arrays, tmp_path / "x.safetensors", {"format": "pt"})
    write_pth(tmp_path / "x.pth", arrays)
    write_pth(tmp_path / "y.pth", {"model": arrays})
    message = f"holds weights as .*{family.strip()}.* names? them .*AugReg .npz file"
    refused(read_augreg, tmp_path / "x.npz", message)
    refused(load_safetensors, tmp_path / "x.safetensors", message)
    for name in ("x.pth", "y.pth"):
        refused(OriginalCheckpoint.open, tmp_path / name, message)


def test_a_state_dict_under_model_is_read(tmp_path):
    weights = {"backbone.cls_token": np.arange(3, dtype=np.float32).reshape(1, 1, 3)}
    opened = OriginalCheckpoint.open(write_pth(tmp_path / "x.pth", {"model": weights, "epoch": 3}))
    np.testing.assert_array_equal(opened.tensors["backbone.cls_token"].read(), weights["backbone.cls_token"])


@pytest.mark.parametrize("prefix", ["params/", "opt/target/"])
def test_an_augreg_file_may_have_its_arrays_under_params(tmp_path, prefix):
    arrays = {"cls": np.ones((1, 1, 8), np.float32), "Transformer/encoder_norm/scale": np.ones(8, np.float32)}
    np.savez(tmp_path / "x.npz", **{f"{prefix}{name}": value for name, value in arrays.items()})
    assert read_augreg(tmp_path / "x.npz").shapes == {f"backbone/{n}": v.shape for n, v in arrays.items()}
