"""The predict command among other people's files: nothing is lost, nothing bad stops the good, any name is printed."""

import json
import os
import subprocess
import sys
import unicodedata
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from larvseg_jax import cli
from larvseg_jax.predict import files
from larvseg_jax.predict import predict as run_predict
from tests.predict.models import write_model

PARTS = ("{}.png", "{}_labels.png", "{}_colours.png", "{}.json")


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    return write_model(tmp_path_factory.mktemp("model") / "m.safetensors", ("cat", "dog", "fish, salmon"))


def save(file, colour=(90, 120, 60), size=(40, 32)):
    file.parent.mkdir(parents=True, exist_ok=True)
    Image.new("RGB", size, colour).save(file)
    return file


def predict(model, *arguments, capsys=None):
    """Exit code, and lines on stdout and stderr."""
    code = 0
    try:
        cli.run("predict", [f"--run={model}", *map(str, arguments)])
    except SystemExit as left:
        code = left.code
    captured = capsys.readouterr()
    return code, captured.out.splitlines(), captured.err.splitlines()


def photos_of(out):
    """Name of every prediction -> its photo; every prediction is whole."""
    found = {}
    for text in out.glob("*.json"):
        for part in PARTS:
            assert (out / part.format(text.stem)).is_file()
        for part, mode in zip(PARTS, ("RGB", "I;16", "RGB"), strict=False):
            with Image.open(out / part.format(text.stem)) as picture:
                assert picture.mode == mode
        summary = json.loads(text.read_text("utf-8"))
        assert summary["label_map"] == f"{text.stem}_labels.png"
        found[text.stem] = summary["photo"]
    assert len(list(out.iterdir())) == len(PARTS) * len(found)
    return found


def test_photos_that_would_write_the_same_files_are_numbered(model, tmp_path, capsys):
    photos = [
        save(tmp_path / "photos" / name)
        for name in ("a.jpg", "a.png", "street.jpg", "street_labels.jpg", "B.jpg", "b.bmp")
    ]
    other = save(tmp_path / "more" / "a.jpg")
    out = tmp_path / "out"
    for _ in range(2):  # the second time each finds its own files
        code, _, errors = predict(model, photos[0].parent, other, f"--out={out}", capsys=capsys)
        assert (code, errors) == (0, [])
        assert photos_of(out) == {
            "B": str(photos[4]),
            "a": str(photos[0]),
            "a_2": str(photos[1]),
            "a_3": str(other),
            "b_2": str(photos[5]),
            "street": str(photos[2]),
            "street_labels_2": str(photos[3]),
        }
    code, *_ = predict(model, photos[1], f"--out={out}", capsys=capsys)
    assert code == 0
    assert len(photos_of(out)) == 7


def test_names_that_a_file_system_takes_for_one_are_numbered(model, tmp_path, capsys):
    names = ["é.jpg", "E\u0301.jpg", "É.png"]
    photos = [save(tmp_path / str(i) / name) for i, name in enumerate(names)]
    predict(model, *photos, f"--out={tmp_path / 'out'}", capsys=capsys)
    stems = {unicodedata.normalize("NFC", stem).casefold() for stem in photos_of(tmp_path / "out")}
    assert stems == {"é", "é_2", "é_3"}


def test_files_of_others_in_the_folder_are_kept(model, tmp_path, capsys):
    folder = tmp_path / "photos"
    photo = save(folder / "a.jpg")
    own = {save(folder / "a.png"), folder / "b.json", save(folder / "c_labels.png"), photo}
    for name in ("b.jpg", "c.jpg"):
        own.add(save(folder / name))
    (folder / "b.json").write_text('{"shapes": []}')
    before = {file: file.read_bytes() for file in own}
    for _ in range(2):  # the second time the predictions of the first are no photos
        code, _, errors = predict(model, folder, f"--out={folder}", capsys=capsys)
        assert (code, errors) == (0, [])
        assert {file: file.read_bytes() for file in own} == before
        added = {file.name for file in folder.iterdir()} - {file.name for file in own}
        stems = ("a_2", "a_3", "b_2", "c_2", "c_labels_2")
        assert added == {part.format(stem) for stem in stems for part in PARTS}


def test_a_photo_given_twice_is_predicted_once(model, tmp_path, capsys, monkeypatch):
    save(tmp_path / "p" / "a.jpg")
    monkeypatch.chdir(tmp_path)
    predict(model, "p", "p/a.jpg", tmp_path / "p" / "a.jpg", "--out=out", capsys=capsys)
    assert photos_of(tmp_path / "out") == {"a": str(tmp_path / "p" / "a.jpg")}


def test_one_name_given_replaces_a_prediction_and_nothing_else(model, tmp_path, capsys):
    first, second = save(tmp_path / "a.jpg"), save(tmp_path / "b.jpg")
    out = tmp_path / "out" / "x.png"
    for photo in (first, second):
        assert predict(model, photo, f"--out={out}", capsys=capsys)[0] == 0
    assert photos_of(out.parent) == {"x": str(second)}
    (out.parent / "x.json").write_text("{}")
    kept = {file: file.read_bytes() for file in out.parent.iterdir()}
    code, _, errors = predict(model, first, f"--out={out}", capsys=capsys)
    assert code == 2
    assert errors == [f"error: {out} is there and is no prediction: give another --out, or move it away"]
    assert {file: file.read_bytes() for file in out.parent.iterdir()} == kept


@pytest.mark.parametrize("photo", ["x.png", "x_labels.png"])
def test_a_photo_is_never_its_own_prediction(model, tmp_path, capsys, photo):
    before = save(tmp_path / photo).read_bytes()
    code, _, errors = predict(model, tmp_path / photo, f"--out={tmp_path / 'x.png'}", capsys=capsys)
    assert code == 2
    assert len(errors) == 1
    assert f"{photo} is the photo itself and would be overwritten" in errors[0]
    assert {file.name: file.read_bytes() for file in tmp_path.iterdir()} == {photo: before}


def bad_files(folder):
    """Files that cannot be predicted -> what their line must say."""
    folder.mkdir(exist_ok=True)
    (folder / "0 cut.jpg").write_bytes(save(folder / "whole.jpg", size=(200, 200)).read_bytes()[:500])
    (folder / "empty.png").touch()
    (folder / "page.jpg").write_text("<!DOCTYPE html><title>404</title>")
    (folder / "iPhone.HEIC").write_bytes(b"\0\0\0\x18ftypheic\0\0\0\0mif1heic" + bytes(40))
    (folder / "lost.jpg").symlink_to(folder / "nowhere.jpg")
    Image.new("1", (30_000, 30_000)).save(folder / "huge.png")
    return {
        "0 cut.jpg": "a JPEG that is broken or cut short: give another photo",
        "empty.png": "the file is empty: give another photo",
        "page.jpg": "a web page (HTML)",
        "iPhone.HEIC": "a HEIC photo, as iPhones take them: convert it to JPEG or PNG",
        "lost.jpg": "a link to a file that is not there",
        "huge.png": "30000 x 30000 pixels (900.0 megapixels) are more than max_megapixels=178: scale it down",
    }


def test_bad_files_are_listed_and_the_good_ones_predicted(model, tmp_path, capsys):
    folder = tmp_path / "photos"
    expected = bad_files(folder)
    save(folder / "zebra.png")
    missing = tmp_path / "missing.jpg"
    code, printed, errors = predict(model, folder, missing, f"--out={tmp_path / 'out'}", capsys=capsys)
    assert code == 2
    assert set(photos_of(tmp_path / "out")) == {"whole", "zebra"}
    assert len(errors) == len(expected) + 1
    for name, what in expected.items():
        (line,) = (line for line in errors if line.startswith(f"error: {folder / name}: "))
        assert what in line
    assert any(line.startswith(f"error: there is no picture {missing}: ") for line in errors)
    assert f"predicted: 2 of {2 + len(errors)}; not predicted:" in printed


def test_a_photo_that_needs_too_much_memory_stops_no_other(model, tmp_path, capsys):
    large, small = save(tmp_path / "a.png", size=(4000, 4000)), save(tmp_path / "b.png")
    code, _, errors = predict(model, large, small, f"--out={tmp_path / 'out'}", "--memory_gb=0.28", capsys=capsys)
    assert code == 2
    assert set(photos_of(tmp_path / "out")) == {"b"}
    assert len(errors) == 1
    assert errors[0].startswith(f"error: {large}: 3 classes at ")
    assert "--memory_gb" in errors[0]


def test_nothing_to_predict_is_one_line(model, tmp_path, capsys):
    (tmp_path / "empty").mkdir()
    save(tmp_path / "texts" / "a.png").unlink()
    for name in ("notes.txt", "b.csv", ".hidden.jpg", "Thumbs.db"):
        (tmp_path / "texts" / name).write_text("x")
    for folder, what in (("empty", "has no pictures"), ("texts", "only b.csv, notes.txt")):
        code, _, errors = predict(model, tmp_path / folder, f"--out={tmp_path / 'out'}", capsys=capsys)
        assert code == 2
        assert len(errors) == 1
        assert what in errors[0]
    assert not (tmp_path / "out").exists()


def test_a_folder_that_cannot_be_written_is_one_line_before_the_model_is_read(tmp_path, capsys, monkeypatch):
    photo = save(tmp_path / "a.png")

    def refuse(*_, **__):
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr("larvseg_jax.predict.names.tempfile.TemporaryFile", refuse)
    code, _, errors = predict(tmp_path / "no-model", photo, f"--out={tmp_path / 'out'}", capsys=capsys)
    assert code == 2
    reason = f"cannot write to {tmp_path / 'out'} ({tmp_path}: Permission denied)"
    assert errors == [f"error: {reason}: give another --out"]


def test_a_full_disk_leaves_no_half_files(model, tmp_path, capsys, monkeypatch):
    photo, out = save(tmp_path / "a.png"), tmp_path / "out"
    assert predict(model, photo, f"--out={out}", capsys=capsys)[0] == 0
    before = {file: file.read_bytes() for file in out.iterdir()}

    def full(*_, **__):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(Image.Image, "save", full)
    code, _, errors = predict(model, photo, f"--out={out}", capsys=capsys)
    assert code == 2
    assert errors == [f"error: cannot write {out / 'a.png'} (No space left on device): give another --out"]
    assert {file: file.read_bytes() for file in out.iterdir()} == before


def test_an_interrupt_is_one_line_and_leaves_whole_files(model, tmp_path, capsys, monkeypatch):
    photos = [save(tmp_path / f"{name}.png") for name in "ab"]
    write = files.write

    def interrupted(target, *arguments, **options):
        if target.stem == "b":
            raise KeyboardInterrupt
        return write(target, *arguments, **options)

    monkeypatch.setattr(run_predict.files, "write", interrupted)
    code, _, errors = predict(model, *photos, f"--out={tmp_path / 'out'}", capsys=capsys)
    assert code == 130
    assert errors == ["interrupted: what was written is whole; the same command predicts all photos again"]
    assert set(photos_of(tmp_path / "out")) == {"a"}


@pytest.mark.parametrize(
    ("flags", "names"),
    [
        (["--classes=dog,cat"], ["dog", "cat"]),
        (["--classes=dog, cat"], ["dog", "cat"]),
        (["--classes=fish, salmon", "--classes=dog"], ["fish, salmon", "dog"]),
        (["--classes=dog,cat", "--classes=fish, salmon"], ["dog", "cat", "fish, salmon"]),
        (["--classes=carnivore/", "--classes=fish"], ["cat", "dog", "fish, salmon"]),
    ],
)
def test_names_with_commas_can_be_given(model, tmp_path, capsys, flags, names):
    code, *_ = predict(model, save(tmp_path / "a.png"), f"--out={tmp_path / 'out'}", *flags, capsys=capsys)
    assert code == 0
    assert json.loads((tmp_path / "out" / "a.json").read_text())["names"] == names


NAMES = (
    "cat [/old]",
    "[red]dog[/red]",
    "a & \"b\" <c> 'd'",
    "eine, zwei",
    "猫",
    "قطة سوداء",
    "smile 😀 :dog:",
    "two\nlines",
    "\x1b[31mred",
)


@pytest.fixture(scope="module")
def strange_model(tmp_path_factory):
    return write_model(tmp_path_factory.mktemp("model") / "m.safetensors", NAMES)


FILE_NAMES = (
    "img [small].jpg",
    "[bold]x [] [red].png",
    "two  spaces, and a comma.png",
    "猫 & <b>.png",
    "new\nline.png",
    os.fsdecode(b"h\xfctte.png"),
    "-dash.png",
)


def test_any_name_is_printed_as_it_is_and_stands_in_the_files(strange_model, tmp_path, capsys):
    rng = np.random.default_rng(0)
    for name in FILE_NAMES:
        pixels = rng.integers(0, 256, (6, 8, 3), dtype=np.uint8)
        Image.fromarray(pixels).resize((64, 48), Image.Resampling.NEAREST).save(tmp_path / name)
    out = tmp_path / "out"
    code, printed, errors = predict(strange_model, tmp_path, f"--out={out}", capsys=capsys)
    assert (code, errors) == (0, [])
    assert sorted(photos_of(out).values()) == sorted(str(tmp_path / name) for name in FILE_NAMES)
    shown = {str(tmp_path / name).replace("\n", "\\n").replace("\udcfc", "\\xfc") for name in FILE_NAMES}
    assert shown <= set(printed)
    assert not any("\x1b" in line for line in printed)
    found = set()
    for name in FILE_NAMES:
        summary = json.loads((out / f"{Path(name).stem}.json").read_text("utf-8"))
        assert summary["names"] == list(NAMES)
        found |= set(summary["shares"])
    assert len(found) > 3
    text = "\n".join(printed)
    for name in found:
        assert name.replace("\n", "\\n").replace("\x1b", "\\x1b") in text


@pytest.mark.parametrize("name", FILE_NAMES[:2] + FILE_NAMES[4:6])
def test_any_name_is_printed_in_errors(strange_model, tmp_path, capsys, name):
    (tmp_path / name).write_text("no picture")
    code, _, errors = predict(strange_model, tmp_path, f"--out={tmp_path / 'out'}", capsys=capsys)
    assert code == 2
    assert len(errors) == 1
    shown = name.replace("\n", "\\n").replace("\udcfc", "\\xfc")
    assert errors[0].startswith(f"error: {tmp_path / shown}: no readable picture")


@pytest.mark.slow
@pytest.mark.parametrize("settings", [dict(PYTHONIOENCODING="latin-1"), dict(LC_ALL="C", PYTHONUTF8="0")])
def test_a_terminal_that_lacks_the_characters_stops_nothing(strange_model, tmp_path, settings):
    photos = []
    for name in FILE_NAMES:
        photos.append(save(tmp_path / "photos" / name))
    command = [sys.executable, "-m", "larvseg_jax.predict", f"--run={strange_model}", f"--out={tmp_path / 'out'}"]
    command += [f"--image={tmp_path / 'photos'}"]
    environment = {**os.environ, "JAX_PLATFORMS": "cpu", "PYTHONCOERCECLOCALE": "0", **settings}
    done = subprocess.run(command, env=environment, capture_output=True, check=False)
    assert done.returncode == 0, done.stderr
    assert b"Traceback" not in done.stderr
    assert b"img [small].jpg" in done.stdout
    assert len(photos_of(tmp_path / "out")) == len(FILE_NAMES)
