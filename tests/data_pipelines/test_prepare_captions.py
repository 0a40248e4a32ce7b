"""`python -m data_pipelines.prepare captions`: the records are the photos and captions of the folder or shards."""

import json

import numpy as np
import pytest

from data_pipelines.builders import preparation as prepare_module
from data_pipelines.builders.captions import Captions
from data_pipelines.sources import SourceConfig, open_source
from larvseg_jax import cli
from larvseg_jax.errors import UserError
from larvseg_jax.vocabulary import Vocabulary
from tests.data_pipelines.captioned import picture, write_folder, write_tar

WORDS = Vocabulary(("dog",), (), ()).label_set()


def prepare(source, out):
    cli.run("prepare", ["captions", f"--from={source}", f"--data_root={out}", "--workers=1"])


def opened(root, split="train", **where):
    return open_source(SourceConfig(split=split, **(where or dict(tfds="captions/1.0.0"))), root, WORDS, "captions")


def all_of(source):
    return [source[i] for i in range(len(source))]


def assert_same(ours, theirs):
    assert len(ours) == len(theirs) > 0
    for one, other in zip(all_of(ours), all_of(theirs), strict=True):
        assert (one["id"], one["captions"]) == (other["id"], other["captions"])
        np.testing.assert_array_equal(one["image"], other["image"])


def metadata(root):
    return json.loads((root / "captions/1.0.0/metadata.json").read_text())


def test_a_folder_with_splits(tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(Captions, "PHOTOS_PER_PIECE", 2)
    write_folder(tmp_path / "pairs", splits={"train": ["a", "c.jpg", "zoo/d"], "val": ["b"], "more": {"x": ["a"]}})
    prepare(tmp_path / "pairs", tmp_path)
    for split, count in (("train", 3), ("val", 1)):
        assert_same(opened(tmp_path, split), opened(tmp_path, split, folder="pairs"))
        assert f"split {split}: {count} photos" in capsys.readouterr().out or count == 1
    assert len(list((tmp_path / "captions/1.0.0").glob("*train*"))) == 2


def test_what_cannot_be_used_is_left_out_and_listed(tmp_path, capsys):
    folder = write_folder(tmp_path / "pairs", {"a.jpg": ["x"], "b.png": [" "], "c.png": ["y"], "d.png": ["z"]})
    (folder / "images" / "c.png").write_bytes(b"no picture")
    prepare(folder, tmp_path)
    assert [photo["id"] for photo in all_of(opened(tmp_path))] == ["a", "d"]
    left = metadata(tmp_path)["unreadable"]["train"]
    assert left[0]["file"].endswith("images/c.png")
    assert left[1] == {"file": str(folder), "reason": f"{folder}/captions.json: 'b.png' has no caption"}
    assert "2 unreadable files left out" in capsys.readouterr().out


def test_shards(tmp_path, capsys):
    first = {"0.png": picture(0), "0.txt": b"a dog", "1.png": picture(1), "1.txt": b""}
    second = {"2.png": picture(2), "2.json": b'{"caption": ["one", "", "two"]}', "3.png": picture(3), "3.json": b"{}"}
    write_tar(tmp_path / "web/train/0.tar", first)
    write_tar(tmp_path / "web/train/1.tar", second)
    whole = write_tar(tmp_path / "web/val/0.tar", first).read_bytes()
    (tmp_path / "web/val/1.tar").write_bytes(whole[:300])
    prepare(tmp_path / "web", tmp_path)
    assert "web: 4 shards" in capsys.readouterr().out
    assert [(p["id"], p["captions"]) for p in all_of(opened(tmp_path))] == [("0", ("a dog",)), ("2", ("one", "two"))]
    assert [photo["id"] for photo in all_of(opened(tmp_path, "val"))] == ["0"]
    left = metadata(tmp_path)["unreadable"]
    assert [one["reason"] for one in left["train"]] == ["'1' has no caption", "no caption"]
    assert any("pictures may be missing" in one["reason"] for one in left["val"])


def test_what_was_not_downloaded_is_said(tmp_path, capsys):
    folder = write_folder(tmp_path / "cc", {"0.jpg": []})
    (folder / "captions.json").unlink()
    (folder / "captions.tsv").write_text("http://a\tone\nhttp://b\ttwo\n")
    prepare(folder, tmp_path)
    said = " ".join(capsys.readouterr().out.split())
    assert "holds 1 of the 2 pictures of captions.tsv, and not http://b" in said.replace("\n", " ")


@pytest.mark.parametrize(
    ("change", "what"),
    [
        (lambda folder: (folder / "captions.json").unlink(), "neither captions.json, .csv or .tsv nor .tar shards"),
        (lambda folder: (folder / "images/a.jpg").unlink(), r"there is no .*a\.jpg"),
    ],
)
def test_what_does_not_fit_stops(tmp_path, change, what):
    folder = write_folder(tmp_path / "pairs")
    change(folder)
    with pytest.raises(UserError, match=what):
        prepare_module.prepare(Captions, folder, tmp_path)


def test_a_set_without_captions_says_so(tmp_path):
    write_folder(tmp_path / "pairs")
    prepare(tmp_path / "pairs", tmp_path)
    for reads in ("masks", "tags"):
        with pytest.raises(UserError, match=r"no feature '(tags|mask)', only captions, id, image"):
            open_source(SourceConfig(tfds="captions/1.0.0"), tmp_path, WORDS, reads)
