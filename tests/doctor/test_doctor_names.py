"""Files with any name, and files that are something else than they seem, in a data folder: doctor, and the report."""

import json
import os

import numpy as np
import pytest

from larvseg_jax.config import from_config
from larvseg_jax.doctor.examination import Extent, diagnose
from larvseg_jax.evaluation.metrics import SegmentationCounts
from larvseg_jax.report import cards, report
from larvseg_jax.vocabulary import Vocabulary
from tests import tiny

BYTES = os.fsdecode(b"h\xfctte [red] :dog:")


@pytest.fixture
def run(tmp_path):
    config = tiny.get_config()
    config.data_root, config.workdir = str(tiny.write_data(tmp_path).parent), str(tmp_path / "run")
    return config


def examined(config, tmp_path, capsys):
    """Exit code, the lines printed, and the JSON file."""
    extent = Extent(None, seconds=0.0, compile=False, step=False, sheet=tmp_path / "doctor.html")
    code = diagnose(from_config(config), extent, tmp_path / "doctor.json")
    return code, capsys.readouterr().out.splitlines(), json.loads((tmp_path / "doctor.json").read_text("utf-8"))


def rename(folder, old, new):
    for file in (folder / "images" / f"{old}.png", folder / "masks" / f"{old}.png"):
        file.rename(file.with_stem(new))
    splits = (folder / "splits.json").read_text()
    (folder / "splits.json").write_text(splits.replace(json.dumps(old), json.dumps(new)))


def test_names_that_are_not_utf_8_or_look_like_markup_pass(run, tmp_path, capsys):
    rename(tmp_path / "tiny", "p00", BYTES)
    code, _, _ = examined(run, tmp_path, capsys)
    assert code == 0
    assert "tte [red] :dog:" in (tmp_path / "doctor.html").read_text("utf-8")


def test_a_bad_file_of_any_name_is_one_line_with_its_own_remedy(run, tmp_path, capsys):
    folder = tmp_path / "tiny"
    rename(folder, "p03", BYTES)
    heic = b"\0\0\0\x18ftypheic\0\0\0\0mif1heic" + bytes(40)
    (folder / "images" / f"{BYTES}.png").write_bytes(heic)
    (folder / "masks" / "p04.png").write_text("version https://git-lfs.github.com/spec/v1\noid sha256:0\n")
    (folder / "images" / "p05.png").unlink()
    (folder / "images" / "p05.png").mkdir()
    code, printed, facts = examined(run, tmp_path, capsys)
    assert code == 1
    lines = [line.strip() for line in printed]
    start = str(folder / "images" / "h\\xfctte [red] :dog:.png")
    (line,) = (line for line in lines if line.startswith(start))
    assert line.endswith("a HEIC photo, as iPhones take them: convert it to JPEG or PNG")
    (line,) = (line for line in lines if line.startswith(f"{folder / 'masks' / 'p04.png'}: no readable mask"))
    assert line.endswith("a Git LFS pointer in place of the picture: fetch the pictures with: git lfs pull")
    (line,) = (line for line in lines if line.startswith(f"{folder / 'images' / 'p05.png'}: "))
    assert "is a folder and no file: move its pictures out of it, or it away" in line
    assert not any(" at 0x" in line for line in lines)
    found = facts["sections"]["unreadable files"]["facts"]["streams.masks"]["unreadable"]
    assert any(BYTES in what for what in found)


def test_the_limit_of_the_config_counts_for_photos_and_masks(run, tmp_path, capsys):
    wide = np.zeros((1000, 1100), np.uint8)
    for part in ("images", "masks"):
        tiny.Image.fromarray(wide).save(tmp_path / "tiny" / part / "p03.png")
    assert examined(run, tmp_path, capsys)[0] == 0
    run.max_megapixels = 1
    code, printed, _ = examined(run, tmp_path, capsys)
    assert code == 1
    for part in ("images", "masks"):
        (line,) = {line.strip() for line in printed if f"{part}/p03.png" in line}
        assert "1100 x 1000 pixels (1.1 megapixels) are more than max_megapixels=1: " in line
        assert line.endswith("scale it down or cut it, or raise max_megapixels")


def test_a_report_takes_any_name(tmp_path):
    names = ("cat [/old]", '<b>猫</b> & "x"', "two\nlines")
    counts = SegmentationCounts(*(np.array([5, 6, 7], np.int64) for _ in range(3)))
    summary = counts.summary(names, Vocabulary(names, base=names, novel=()))
    pixels = np.zeros((8, 8, 3), np.uint8)
    item = cards.GalleryItem(BYTES, pixels, np.zeros((8, 8), np.int32))
    path = report.write_report(
        tmp_path,
        title=f"run {BYTES}",
        evaluations=[report.EvaluationReport("val", summary, {"Photos": [item]})],
        history=[],
        facts={"data": f"/x/{BYTES}"},
        config={"classes": names},
        timings={},
    )
    page = path.read_text("utf-8")
    assert "tte [red] :dog:" in page
    assert "cat [/old]" in page
    assert "&lt;b&gt;猫&lt;/b&gt; &amp;" in page
    assert "<b>猫" not in page
