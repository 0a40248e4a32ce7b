"""The doctor on streams of captions, in a folder, in shards and prepared; the method is a stand-in that reads none."""

import dataclasses
import json
from typing import Literal

import pytest

from configs import common
from data_pipelines.caption_views import CaptionView
from larvseg_jax import cli
from larvseg_jax.config import from_config
from larvseg_jax.doctor import data, set_report
from larvseg_jax.doctor.examination import Extent, diagnose, examine
from larvseg_jax.options import defaults
from tests import tiny
from tests.data_pipelines.captioned import picture, write_folder, write_tar
from tests.methods import prototypes


@dataclasses.dataclass(frozen=True)
class Config(prototypes.Config):
    """Streams of captions are allowed, and not read."""

    name: Literal["tests.doctor.test_doctor_captions"] = "tests.doctor.test_doctor_captions"

    def loss_options(self, view: type) -> type:
        return prototypes.Loss


GOOD = {"a.jpg": ["A dog", "a <b>dog</b>"], "b.png": ["a red ball"], "c.jpg": ["grass"]}


@pytest.fixture
def config(tmp_path):
    config = prototypes.get_config()
    config.data_root, config.workdir = str(tiny.write_data(tmp_path).parent), str(tmp_path / "run")
    text = dict(kind="words", words=("a", "dog"), context=8)
    stream = common.caption_stream(
        prototypes.Loss, crop_size=16, batch_size=2, text=text, local_views=2, local_size=8, recoloured=True
    )
    stream.source = common.source(folder="pairs")
    config.streams.pairs, config.batch_padding = stream, "pad"
    with config.unlocked():
        config.method = defaults(Config)
    write_folder(tmp_path / "pairs", GOOD)
    return config


def extent(tmp_path):
    return Extent(200, seconds=0.0, compile=False, step=False, sheet=tmp_path / "doctor.html")


def findings(config, tmp_path, section):
    run = from_config(config)
    sections = {found.title: found for found in examine(run, extent(tmp_path))}
    return [(f.level, f.text, f.details) for f in sections[section].findings if f.where == "streams.pairs"]


def test_a_good_folder_passes_and_its_captions_are_on_the_sheet(config, tmp_path):
    assert diagnose(from_config(config), extent(tmp_path)) == 0
    page = (tmp_path / "doctor.html").read_text()
    assert "a red ball" in page
    assert "a &lt;b&gt;dog&lt;/b&gt;" in page
    found = findings(config, tmp_path, "masks and tags")
    assert found == [("ok", "all 3 photos: each has a caption, none of them empty", ())]
    assert findings(config, tmp_path, "shared and novel classes") == [("ok", "learns from captions: no columns", ())]


def test_what_is_wrong_with_captions_is_counted(config, tmp_path):
    captions = GOOD | {"b.png": [" "], "c.jpg": ["grass", "", "grass"]}
    write_folder(tmp_path / "pairs", captions)
    (tmp_path / "pairs/images/spare.png").write_bytes(picture())
    found = findings(config, tmp_path, "masks and tags")
    assert [(level, text.partition(";")[0]) for level, text, _ in found] == [
        ("warning", "photos without a caption: 1 among all 2 photos"),
        ("warning", "photos that have an empty caption: 1 among all 2 photos"),
        ("warning", "photos that have a caption twice: 1 among all 2 photos"),
    ]
    (found,) = (f for f in findings(config, tmp_path, "data") if f[0] == "warning")
    assert found[1].startswith("pictures that the list does not name: 1")


def test_a_broken_picture_and_a_missing_one_are_errors(config, tmp_path):
    (tmp_path / "pairs/images/b.png").write_bytes(b"<html>not found</html>")
    (found,) = findings(config, tmp_path, "unreadable files")
    assert found[0] == "error"
    assert "b.png: no readable picture" in found[2][0]
    (tmp_path / "pairs/images/a.jpg").unlink()
    assert any(level == "error" and "files missing" in text for level, text, _ in findings(config, tmp_path, "data"))


def test_shards_that_were_not_downloaded_whole(config, tmp_path):
    pairs = {"00.png": picture(0), "00.txt": b"a dog", "02.png": picture(1), "02.json": b'{"caption": ["x", "x"]}'}
    write_tar(tmp_path / "web/0.tar", pairs | {"03.png": picture(2)})
    (tmp_path / "web/0_stats.json").write_text(json.dumps({"count": 5}))
    config.streams.pairs.source = common.source(shards="web")
    found = findings(config, tmp_path, "data")
    assert [level for level, _, _ in found] == ["ok", "warning"]
    assert "split 'train': 2 photos" in found[0][1]
    assert "2 of 5 pictures are there with a caption, 3 are not: 01, 03, 04" in found[1][2][0]
    levels = [(level, text.partition(":")[0]) for level, text, _ in findings(config, tmp_path, "masks and tags")]
    assert levels == [("warning", "photos without a caption"), ("warning", "photos that have a caption twice")]


def test_a_prepared_set(config, tmp_path):
    cli.run("prepare", ["captions", f"--from={tmp_path / 'pairs'}", f"--data_root={tmp_path}", "--workers=1"])
    config.streams.pairs.source = common.source(tfds="captions/1.0.0")
    assert diagnose(from_config(config), extent(tmp_path)) == 0
    (found,) = findings(config, tmp_path, "data")
    assert found[0] == "ok"
    assert "3 photos, from photos with captions.json" in found[1]


def test_no_data_at_all(config, tmp_path):
    config.streams.pairs.source = common.source(folder="nowhere")
    reports = set_report.inspect(from_config(config), None)
    found = data.found_section(from_config(config), reports).findings
    assert any("nowhere does not exist" in f.text for f in found if f.level == "error")


def test_the_view_is_the_stream_s(config):
    view = from_config(config).streams["pairs"].view
    assert isinstance(view, CaptionView)
    assert (view.local_views, view.recoloured, view.text.words) == (2, True, ("a", "dog"))
