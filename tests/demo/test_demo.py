"""The first look: photos, one picture of them, and what it says where something is missing."""

import os
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from larvseg_jax import Segmenter, cli
from larvseg_jax.commands import demo as command
from larvseg_jax.demo import demo as first_look
from larvseg_jax.demo.sheet import MOST, write_sheet
from larvseg_jax.predict import files
from larvseg_jax.predict.predictor import Prediction
from larvseg_jax.predict.segmentation import Segmentation
from larvseg_jax.report.colours import class_colours
from larvseg_jax.shipped.shipped import PHOTOS
from tests.predict.models import write_model

NAMES = ("background", "cat", "dog", "sofa")


def write_prediction(folder, name, labels):
    """A grey photo and the files of its prediction; paths of photo and overlay."""
    photo, target = folder / f"{name}.png", folder / "out" / f"{name}.png"
    image = np.full((*labels.shape, 3), 100, np.uint8)
    Image.fromarray(image).save(photo)
    strip = Prediction(NAMES, labels[..., None].astype(np.int32), np.ones((*labels.shape, 1), np.float32), None)
    files.write(target, str(photo), image, Segmentation.of([strip], labels.shape), "m")
    return photo, target


def test_the_sheet_shows_photos_and_below_them_their_classes(tmp_path):
    wide, square = np.zeros((100, 200), int), np.full((400, 400), 3)
    wide[:50, :100] = 1
    square[:200, :200] = 2
    predictions = dict([write_prediction(tmp_path, "a", wide), write_prediction(tmp_path, "b", square)])
    write_sheet(predictions, tmp_path / "sheet.jpg")
    page = np.asarray(Image.open(tmp_path / "sheet.jpg")).astype(float)
    assert page.shape[1] == 400 + 6 + 200
    mixed = 0.6 * class_colours(NAMES) + 0.4 * 100
    expected = {  # (y, x): colour, far from edges, which are white, and JPEG blurs them
        (100, 100): 100,
        (100, 500): 100,
        (206 + 50, 100): mixed[1],
        (206 + 150, 100): 100,  # background: the photo itself
        (206 + 50, 406 + 50): mixed[2],
        (206 + 150, 406 + 150): mixed[3],
    }
    for (y, x), colour in expected.items():
        np.testing.assert_allclose(page[y, x], np.broadcast_to(colour, 3), atol=6, err_msg=f"{y}, {x}")
    captions = page[2 * 200 + 6 + 8 :, 8:10].min(-1)  # the colours of the classes beside their names
    np.testing.assert_allclose(captions[0, 0], class_colours(["cat"])[0].min(), atol=12)


def test_a_sheet_replaces_sheets_alone_and_has_room_for_so_many(tmp_path):
    photo, target = write_prediction(tmp_path, "a", np.ones((20, 20), int))
    mine = tmp_path / "sheet.jpg"
    Image.new("RGB", (3, 3)).save(mine, comment=b"holidays")
    before = mine.read_bytes()
    second = tmp_path / "sheet_2.jpg"
    for _ in range(2):
        assert write_sheet({photo: target}, mine) == second
    assert mine.read_bytes() == before
    (tmp_path / "broken.png").write_bytes(b"?")
    assert write_sheet({tmp_path / "broken.png": target}, tmp_path / "none.jpg") is None
    many = {}
    for number in range(MOST + 2):
        many[tmp_path / f"{number}.png"] = target
        (tmp_path / f"{number}.png").write_bytes(photo.read_bytes())
    write_sheet({tmp_path / "broken.png": target, **many}, tmp_path / "many.jpg")
    with Image.open(tmp_path / "many.jpg") as page, Image.open(second) as one:
        assert page.size == (5 * one.width + 4 * 6, MOST // 5 * one.height)


def test_it_segments_the_photos_that_come_with_it_and_those_given(tmp_path, monkeypatch, capsys):
    monkeypatch.setitem(first_look.MODELS, "animals", write_model(tmp_path / "m.safetensors", NAMES))
    monkeypatch.setattr(first_look, "fetch", lambda: None)
    monkeypatch.setattr(command, "PHOTOS", tmp_path / "photos")
    monkeypatch.chdir(tmp_path)
    Path("photos").mkdir()
    for name in "ab":
        Image.new("RGB", (40, 30)).save(f"photos/{name}.jpg")
    cli.run("demo", [])
    assert {path.stem for path in Path("demo").glob("*.json")} == {"a", "b"}
    cli.run("demo", ["photos", "demo", "--out=again"])  # an earlier sheet is no photo
    assert {path.stem for path in Path("again").glob("*.json")} == {"a", "b"}
    with Image.open("demo/sheet.jpg") as sheet:
        assert sheet.format == "JPEG"
    Image.new("RGB", (40, 30)).save("mine.png")
    Path("broken.jpg").write_bytes(b"?")
    with pytest.raises(SystemExit) as stopped:
        cli.run("demo", ["mine.png", "broken.jpg", "absent.jpg", "--out=mine"])
    assert stopped.value.code == 2
    said = capsys.readouterr().err
    assert "broken.jpg" in said
    assert "absent.jpg" in said
    assert sorted(path.name for path in Path("mine").glob("*")) == [
        "mine.json",
        "mine.png",
        "mine_colours.png",
        "mine_labels.png",
        "sheet.jpg",
    ]


@pytest.mark.slow
def test_the_shipped_model_finds_the_animals(shared):
    """Where the weights are there: the largest class beside the background is what the photo is named after."""
    file = Path(os.environ.get("LARVSEG_DINOV2") or shared / "weights/dinov2_vits14.npz")
    if not file.is_file():
        pytest.skip(f"no DINOv2 here: set LARVSEG_DINOV2 to its file ({file} is none)")
    model = Segmenter.load("animals", pretrained=file)
    photos = sorted(PHOTOS.glob("*.jpg"))
    for photo, result in zip(photos, model(photos), strict=True):
        shares = [(result.names[label], share) for label, share in result.shares()]
        (name, share), *_ = [pair for pair in shares if pair[0] != "background"]
        assert (name, share > 0.1) == (photo.stem, True), shares
