"""Programs of files against the model they were made of, run by JAX alone and by onnxruntime."""

import json
import subprocess
import sys

import jax.numpy as jnp
import numpy as np
import pytest

from larvseg_jax import Segmenter, cli
from larvseg_jax.errors import UserError
from larvseg_jax.portable import kinds, program
from larvseg_jax.portable.export import export_program
from larvseg_jax.trained import load_trained
from tests.child import environment
from tests.predict.models import write_model

NAMES = ("background", "cat", "dog", "sofa")
ALONE = """
import sys, jax, numpy as np
program = jax.export.deserialize(bytearray(open(sys.argv[1], "rb").read()))
np.save(sys.argv[3], program.call(np.load(sys.argv[2])))
assert not {"larvseg_jax", "flax"} & sys.modules.keys()
print(program.platforms)
"""


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    return write_model(tmp_path_factory.mktemp("model") / "m.safetensors", NAMES)


@pytest.fixture(params=[(40, 72), (20, 50)], ids=["windows overlap", "lower than a window"])
def photo(request):
    """Its size is what the network sees; patches of 8 in windows of 32."""
    return np.random.default_rng(0).integers(0, 256, (*request.param, 3), dtype=np.uint8)


def written(model, photo, out):
    """Exports the model; the names of the classes that the file gives."""
    flags = [f"--run={model}", f"--out={out}", f"--size={len(photo)}x{len(photo[0])}", "--classes=sofa,dog,cat"]
    cli.run("export", flags)
    return np.array(json.loads(out.with_name(f"{out.name}.json").read_text())["classes"])


def assert_same(model, photo, found):
    """The names at each pixel are those of the model's own prediction."""
    scale = (max(photo.shape[:2]), min(photo.shape[:2]))
    result = Segmenter.load(model, scale=scale)(photo, classes=["sofa", "dog", "cat"])
    assert found.shape == photo.shape[:2]
    assert len(np.unique(found)) == 3
    # Where two classes are equal but for rounding, either may win.
    assert (found == np.array(result.names)[result.labels]).mean() > 0.999


@pytest.mark.slow
def test_a_program_of_jax_gives_the_labels_of_the_model(model, photo, tmp_path):
    out = tmp_path / "m.stablehlo"
    names = written(model, photo, out)
    np.save(tmp_path / "photo.npy", photo)
    command = [sys.executable, "-c", ALONE, out, tmp_path / "photo.npy", tmp_path / "labels.npy"]
    ended = subprocess.run(command, env=environment(), cwd=tmp_path, capture_output=True, text=True, check=True)
    assert "cpu" in ended.stdout
    assert "tpu" in ended.stdout
    assert_same(model, photo, names[np.load(tmp_path / "labels.npy")])


@pytest.mark.slow
def test_onnxruntime_gives_the_labels_of_the_model(model, photo, tmp_path):
    pytest.importorskip("jax2onnx", reason="jax2onnx is not installed (docs/exports.md)")
    runtime = pytest.importorskip("onnxruntime", reason="onnxruntime is not installed (docs/exports.md)")
    names = written(model, photo, tmp_path / "m.onnx")
    session = runtime.InferenceSession(tmp_path / "m.onnx", providers=["CPUExecutionProvider"])
    (labels,) = session.run(None, {session.get_inputs()[0].name: photo})
    assert_same(model, photo, names[labels])


def test_a_package_that_is_missing_is_named(model, tmp_path, monkeypatch):
    monkeypatch.setattr(kinds.importlib.util, "find_spec", lambda name: None)
    with pytest.raises(UserError, match=r"m.onnx needs the package jax2onnx: docs/exports.md"):
        export_program(load_trained(model), tmp_path / "m.onnx", NAMES, (32, 32))


def test_more_scores_than_fit_are_refused(model, monkeypatch):
    trained = load_trained(model)
    monkeypatch.setattr(program, "LARGEST", 100)
    with pytest.raises(UserError, match=r"2 classes at 8 x 8 pixels are more than 100 scores"):
        program.photo_program(trained, ("cat", "dog"), (8, 8))


def test_a_program_adds_the_offset_of_novel_classes(tmp_path):
    file = write_model(tmp_path / "m.safetensors", NAMES, ("dog", "sofa"), "background")
    photo = np.random.default_rng(0).integers(0, 256, (40, 72, 3), dtype=np.uint8)
    for offset, shown in ((1e4, {0, 1}), (-1e4, {2})):  # of sofa, dog, cat
        trained = load_trained(file).with_novel_offset(offset)
        labels = np.asarray(program.photo_program(trained, ["sofa", "dog", "cat"], (40, 72))(jnp.asarray(photo)))
        assert set(np.unique(labels).tolist()) <= shown
