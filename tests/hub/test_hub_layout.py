"""Hugging Face's layout: what is in the folder, what may be replaced, and its own library on it."""

import json
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
from safetensors import safe_open

from larvseg_jax import Segmenter, cli
from larvseg_jax.errors import UserError
from larvseg_jax.hub.layout import check_layout
from tests.predict.models import write_model

NAMES = ("background", "cat", "dog", "sofa")


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    file = tmp_path_factory.mktemp("model") / "m.safetensors"
    return write_model(file, NAMES, novel=("dog",), background="background")


@pytest.fixture(scope="module")
def photo():
    return np.random.default_rng(0).integers(0, 256, (50, 70, 3), dtype=np.uint8)


@pytest.fixture
def folder(model, tmp_path):
    cli.run("export", [f"--run={model}", f"--out={tmp_path / 'hf'}", "--huggingface", "--licence=apache-2.0"])
    return tmp_path / "hf"


def test_the_folder_has_the_model_and_says_what_it_is(folder, model, photo):
    assert sorted(path.name for path in folder.iterdir()) == ["README.md", "config.json", "model.safetensors"]
    config = json.loads((folder / "config.json").read_text())
    assert (config["classes"], config["base"], config["novel"]) == (list(NAMES), ["cat", "sofa"], ["dog"])
    assert config["windows"] == {"scale": [64, 32], "window": 32, "stride": 32}
    found, expected = Segmenter.load(folder / "model.safetensors"), Segmenter.load(model)
    assert (found.base, found.novel) == (expected.base, expected.novel)
    np.testing.assert_array_equal(found(photo).labels, expected(photo).labels)


def test_only_what_is_of_an_earlier_export_is_replaced(folder, model):
    line = [f"--run={model}", f"--out={folder}", "--huggingface"]
    (folder / "README.md").write_text("mine")
    (folder / "model.safetensors").write_bytes(b"")
    for name in ("LICENSE", ".gitattributes"):
        (folder / name).write_text("kept")
    cli.run("export", line)
    assert (folder / "README.md").read_text() == "mine"
    with safe_open(folder / "model.safetensors", "np") as file:
        assert "head/gamma" in file.keys()  # noqa: SIM118
    (folder / "notes.txt").write_text("")
    with pytest.raises(UserError, match=r"holds notes.txt, which is no part of a model: give a folder of its own"):
        check_layout(folder)
    (folder / "notes.txt").unlink()
    (folder / "config.json").write_text('{"model_type": "vit"}')
    with pytest.raises(UserError, match=r"config.json is another program's"):
        check_layout(folder)


@pytest.mark.parametrize(
    ("flags", "said"),
    [
        (["--out=x.stablehlo"], "--size is missing"),
        (["--out=x.stablehlo", "--size=4"], "--size=4 is no size in pixels: give HEIGHTxWIDTH such as 480x640"),
        (["--out=x.stablehlo", "--size=9x9", "--learnt"], "--learnt and --out=x.stablehlo are different files"),
        (["--out=x", "--huggingface", "--memory"], "--memory with --huggingface: leave one out"),
        (["--out=x", "--huggingface", "--licence=a", "--licence=b"], "give one identifier such as apache-2.0"),
        (["--out=x", "--huggingface", "--licence=MIT: all"], "--licence=MIT: all is no identifier"),
        (["--out=x.safetensors", "--classes=cat"], "give an --out that ends in .stablehlo or .onnx"),
        (["--out=m.safetensors", "--huggingface"], "m.safetensors is a file: give a folder, new or empty"),
    ],
)
def test_flags_that_say_nothing_together(model, monkeypatch, capsys, flags, said):
    monkeypatch.chdir(model.parent)
    with pytest.raises(SystemExit) as stopped:
        cli.run("export", ["--run=m.safetensors", *flags])
    assert stopped.value.code == 2
    assert said in capsys.readouterr().err


def test_with_their_library(model, photo, tmp_path):
    hub = pytest.importorskip("huggingface_hub", reason="huggingface_hub is not installed (pip install -e .[hub])")
    from larvseg_jax.hub.segmenter import HubSegmenter

    first, folder = HubSegmenter.load(model), tmp_path / "hf"
    for _ in range(2):  # the second time it begins by deleting config.json
        first.save_pretrained(folder)
    assert json.loads((folder / "config.json").read_text())["model_type"] == "larvseg_jax"
    second = HubSegmenter.from_pretrained(folder, scale=(64, 64))
    assert isinstance(second, HubSegmenter)
    assert second.novel == ("dog",)
    expected = Segmenter.load(model, scale=(64, 64))
    np.testing.assert_array_equal(second(photo).labels, expected(photo).labels)
    card = hub.ModelCard.load(folder / "README.md").data
    assert (card.library_name, card.pipeline_tag) == ("larvseg_jax", "image-segmentation")
    with pytest.raises(UserError, match=r"holds no model.safetensors"):
        HubSegmenter.from_pretrained(tmp_path)


def test_it_is_pushed_as_it_is_saved(model, monkeypatch):
    hub = pytest.importorskip("huggingface_hub", reason="huggingface_hub is not installed (pip install -e .[hub])")
    from larvseg_jax.hub.segmenter import HubSegmenter

    sent = {}

    def upload(_api, *, repo_id, folder_path, **_options):
        sent[repo_id] = sorted(path.name for path in Path(folder_path).iterdir())

    monkeypatch.setattr(hub.HfApi, "create_repo", lambda *_, repo_id, **__: SimpleNamespace(repo_id=repo_id))
    monkeypatch.setattr(hub.HfApi, "upload_folder", upload)
    HubSegmenter.load(model).push_to_hub("me/mine")
    assert sent == {"me/mine": ["README.md", "config.json", "model.safetensors"]}


def test_the_card_has_the_licence(folder):
    hub = pytest.importorskip("huggingface_hub", reason="huggingface_hub is not installed (pip install -e .[hub])")
    assert hub.ModelCard.load(folder / "README.md").data.license == "apache-2.0"
