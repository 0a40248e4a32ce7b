"""larvseg teach: a file that predict takes, and one line for whatever is wrong."""

import json

import numpy as np
import pytest
from PIL import Image

from larvseg_jax import Segmenter, cli
from tests.predict.models import write_model


@pytest.fixture
def here(tmp_path, monkeypatch):
    """Two photos of 64 x 32 pixels, grey on the left and noise on the right, masks of the grey, and a model."""
    monkeypatch.chdir(tmp_path)
    rng = np.random.default_rng(0)
    for name in ("a", "b:c"):
        noise = rng.integers(0, 256, (32, 32, 3), np.uint8)
        Image.fromarray(np.concatenate([np.full((32, 32, 3), 20, np.uint8), noise], 1)).save(f"{name}.png")
    mask = np.zeros((32, 64), np.uint8)
    mask[:, :32] = 9
    Image.fromarray(mask).save("mask.png")
    Image.fromarray(mask[:, :40]).save("narrow.png")
    write_model(tmp_path / "m.safetensors", ("cat", "dog", "sofa"), ("dog",))
    return tmp_path


def teach(*arguments, capsys):
    """Exit code, and lines on stdout and stderr."""
    code = 0
    try:
        cli.run("teach", list(arguments))
    except SystemExit as left:
        code = left.code
    captured = capsys.readouterr()
    return code, captured.out.splitlines(), captured.err.splitlines()


MODEL = ["--model=m.safetensors", "--out=taught.safetensors"]
PHOTOS = ["--image=a.png", "--image=b:c.png"]


@pytest.mark.parametrize(
    ("given", "same"),
    [
        ([*PHOTOS, "--mask=mask.png", "--mask=mask.png"], {"masks": ["mask.png", "mask.png"]}),
        (
            [*PHOTOS, "--point=a.png:10,10", "--point=b:c.png:5,20", "--point=a.png:3.5,4"],
            {"points": [[(10, 10), (3.5, 4)], [(5, 20)]]},
        ),
        (["--image=a.png", "--point=12,20"], {"points": [[(12, 20)]]}),
        (PHOTOS, {}),
    ],
    ids=["masks", "points", "one photo", "tags"],
)
def test_the_file_knows_what_the_segmenter_is_taught(here, given, same, capsys):
    code, printed, errors = teach("my mug", *MODEL, *given, capsys=capsys)
    assert (code, errors) == (0, [])
    assert "4 classes, my mug is a novel one" in printed[-1]
    model = Segmenter.load("m.safetensors")
    model.teach("my mug", [word.removeprefix("--image=") for word in given if "--image" in word], **same)
    again = Segmenter.load("taught.safetensors")
    assert (again.classes, again.base, again.novel) == (("cat", "dog", "sofa", "my mug"), model.base, ("dog", "my mug"))
    np.testing.assert_array_equal(again("a.png").labels, model("a.png").labels)


def test_predict_takes_the_file(here, capsys):
    assert teach("mug", *MODEL, "--image=a.png", "--point=10,10", capsys=capsys)[0] == 0
    cli.run("predict", ["a.png", "--model=taught.safetensors", "--out=found", "--classes=mug,cat"])
    found = json.loads((here / "found" / "a.json").read_text())
    assert found["names"] == ["mug", "cat"]
    assert found["segments"][0]["class"] == "mug"


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ([*MODEL, "--image=a.png", "--point=1,1"], "there is none"),
        (["my", "mug", *MODEL, "--image=a.png", "--point=1,1"], "there are 2, 'my', 'mug'"),
        (["cat", *MODEL, "--image=a.png", "--point=1,1"], "knows 'cat' already"),
        (["mug", *MODEL], "there is no photo of the class"),
        (["mug", *MODEL, "--image=a.png"], "give two, or points or a mask"),
        (["mug", *MODEL, "--image=none.png", "--point=1,1"], "there is no picture none.png"),
        (["mug", *MODEL, *PHOTOS, "--mask=mask.png"], "1 masks for 2 photos"),
        (["mug", *MODEL, "--image=a.png", "--mask=none.png"], "there is no mask none.png"),
        (
            ["mug", *MODEL, "--image=a.png", "--mask=narrow.png"],
            "photo 1 of 1 (a.png) has 64 x 32 pixels, its mask narrow.png 40 x 32",
        ),
        (["mug", *MODEL, "--image=a.png", "--mask=mask.png", "--point=1,1"], "leave one of the two out"),
        (["mug", *MODEL, "--image=a.png", "--point=64,1"], "the point (64, 1) is not in it"),
        (["mug", *MODEL, "--image=a.png", "--point=1"], "--point=1 is no point"),
        (["mug", *MODEL, *PHOTOS, "--point=1,1"], "--point=1,1: of which of the photos"),
        (["mug", *MODEL, *PHOTOS, "--point=c.png:1,1"], "of c.png, which no --image names"),
        (["mug", *MODEL, *PHOTOS, "--point=a.png:1,1"], "photo 2 of 2 (b:c.png): no pixel of the class is marked"),
        (["mug", "--model=no.safetensors", "--out=x.safetensors", "--image=a.png", "--point=1,1"], "no.safetensors"),
        (["mug", "--model=m.safetensors", "--out=x", "--image=a.png", "--point=1,1"], "ends in .safetensors"),
        (["mug", "--model=m.safetensors", "--image=a.png", "--point=1,1"], "--out"),
    ],
)
def test_what_is_wrong_is_said_in_one_line(here, arguments, message, capsys):
    code, _, errors = teach(*arguments, capsys=capsys)
    assert (code, len(errors)) == (2, 1)
    assert message in errors[0]
    assert not (here / "taught.safetensors").exists()
