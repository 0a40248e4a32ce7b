"""The doctor on data folders: every kind of damage is named with file and value; a clean set passes."""

import io
import json
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from larvseg_jax.config import from_config
from larvseg_jax.doctor import data, set_report
from larvseg_jax.doctor.examination import Extent, diagnose
from larvseg_jax.doctor.findings import count
from tests import tiny


@pytest.fixture
def config(tmp_path):
    config = tiny.get_config()
    config.data_root, config.workdir = str(tiny.write_data(tmp_path).parent), str(tmp_path / "run")
    return config


def extent(tmp_path: Path, photos: int | None = 200) -> Extent:
    return Extent(photos, seconds=0.0, compile=False, step=False, sheet=tmp_path / "doctor.html")


def mask_of(folder: Path, stem: str) -> np.ndarray:
    return np.array(Image.open(folder / "masks" / f"{stem}.png"))


def write_mask(folder: Path, stem: str, mask: np.ndarray) -> None:
    Image.fromarray(mask).save(folder / "masks" / f"{stem}.png")


def edit_splits(folder: Path, edit) -> None:
    file = folder / "splits.json"
    splits = json.loads(file.read_text())
    edit(splits)
    file.write_text(json.dumps(splits))


def value_200(folder):
    for stem, row in (("p03", 5), ("p04", 7)):
        mask = mask_of(folder, stem)
        mask[row, 6] = 200
        write_mask(folder, stem, mask)
    return "masks and tags", "streams.masks", "error", [
        "p03.png: value 200 at row 5, column 6 (1 such pixels) is not among 0..4 nor 255 (ignore)",
        "p04.png: value 200 at row 7, column 6",
    ]  # fmt: skip


def wrong_size(folder):
    write_mask(folder, "p03", np.pad(mask_of(folder, "p03"), ((0, 9), (0, 1))))
    return "masks and tags", "streams.masks", "error", ["p03.png: mask of 37x41 pixels, photo of 36x32"]


def truncated_jpeg(folder):
    file = io.BytesIO()
    Image.fromarray(np.random.default_rng(0).integers(0, 256, (32, 36, 3), dtype=np.uint8)).save(file, "JPEG")
    for stem in ("p03", "p12"):
        (folder / "images" / f"{stem}.png").unlink()
        (folder / "images" / f"{stem}.jpg").write_bytes(file.getvalue()[:-200])
    return "unreadable files", "streams.masks", "error", ["p03.jpg: no readable picture"]


def truncated_tagged_jpeg(folder):
    truncated_jpeg(folder)
    return "unreadable files", "streams.tags", "error", ["p12.jpg: no readable picture"]


def truncated_mask(folder):
    file = folder / "masks" / "p03.png"
    file.write_bytes(file.read_bytes()[:60])
    return "unreadable files", "streams.masks", "error", ["p03.png: no readable mask in these 60 bytes"]


def missing_photos(folder):
    for stem in ("p03", "p05"):
        (folder / "images" / f"{stem}.png").unlink()
    return "data", "streams.masks", "error", ["images/p03.jpg does not exist", "images/p05.jpg does not exist"]


def missing_mask(folder):
    (folder / "masks" / "p04.png").unlink()
    return "data", "streams.masks", "error", ["masks/p04.png does not exist"]


def mask_without_photo(folder):
    write_mask(folder, "stray", mask_of(folder, "p03"))
    return "data", "streams.masks", "warning", ["masks/stray.png has no photo"]


def listed_twice(folder):
    edit_splits(folder, lambda splits: splits["train"].append("p03"))
    return "data", "streams.masks", "error", ["lists 'p03' twice"]


def empty_mask(folder):
    write_mask(folder, "p03", np.full_like(mask_of(folder, "p03"), 255))
    return "masks and tags", "streams.masks", "warning", ["p03.png: nothing in it that the stream knows"]


def swapped_ids_of_one(folder):
    mask = mask_of(folder, "p03")
    shown = set(np.unique(mask)) - {0}
    other = ({1, 2, 3, 4} - shown).pop()
    gone = int(shown.pop())
    mask[mask == gone] = other
    write_mask(folder, "p03", mask)
    return "masks and tags", "streams.masks", "warning", [f"p03.png: tagged {gone} ({tiny.NAMES[gone]}); the mask"]


def shifted_ids_of_all(folder):
    for i in range(tiny.MASKED):
        mask = mask_of(folder, f"p{i:02d}")
        write_mask(folder, f"p{i:02d}", np.where(mask == 0, 255, mask - 1).astype(np.uint8))
    return "masks and tags", "streams.masks", "error", ["tagged"]


def too_many_tags(folder):
    edit_splits(folder, lambda splits: splits["image_labels"].update(p12=[1, 2, 3, 4]))
    return "masks and tags", "streams.tags", "error", ["images/p12.png: 5 tags, and max_labels is 4"]


def no_such_tag(folder):
    edit_splits(folder, lambda splits: splits["image_labels"].update(p12=[1, 9], p13=["cat"]))
    return "masks and tags", "streams.tags", "error", [
        "photo 'p12': image label 9 is not among the classes 0..4",
        "photo 'p13': image label 'cat' is not among",
    ]  # fmt: skip


def untagged(folder):
    edit_splits(folder, lambda splits: splits["image_labels"].update(p12=[]))
    return "masks and tags", "streams.tags", "warning", ["images/p12.png: nothing in it that the stream knows"]


DAMAGES = (
    value_200, wrong_size, truncated_jpeg, truncated_tagged_jpeg, truncated_mask, missing_photos, missing_mask,
    mask_without_photo, listed_twice, empty_mask, swapped_ids_of_one, shifted_ids_of_all, too_many_tags, no_such_tag,
    untagged,
)  # fmt: skip


@pytest.mark.parametrize("damage", DAMAGES, ids=lambda f: f.__name__)
def test_damage_is_named(config, tmp_path, damage):
    title, where, level, cases = damage(tmp_path / "tiny")
    reports = set_report.inspect(from_config(config), None)
    sections = {
        s.title: s
        for s in (data.found_section(from_config(config), reports), data.unreadable_section(reports),
                  data.labels_section(reports))
    }  # fmt: skip
    findings = sections[title].findings
    found = [f for f in findings if f.where == where and any(cases[0] in detail for detail in f.details)]
    assert [f.level for f in found] == [level], findings
    for case in cases:
        assert any(case in detail for detail in found[0].details), found[0].details
    # Nobody else complains of this: the exit code is that of the damage.
    assert bool(count(sections.values())["error"]) == (level == "error")


def test_a_clean_set_passes(config, tmp_path, capsys):
    assert diagnose(from_config(config), extent(tmp_path), tmp_path / "facts.json") == 0
    facts = json.loads((tmp_path / "facts.json").read_text())
    assert facts["counts"]["error"] == facts["counts"]["warning"] == 0
    assert list(facts["sections"]) == [
        "data", "unreadable files", "masks and tags", "photos of each class", "tags of photos", "ImageNet-21K",
        "shared and novel classes", "contact sheet",
        "disk", "memory", "speed", "machine",
    ]  # fmt: skip
    labels = facts["sections"]["masks and tags"]["facts"]
    assert labels["streams.masks"]["classes_ignored"] == ["blue", "grey"]
    tags = json.loads((tmp_path / "tiny" / "splits.json").read_text())
    most = max(len(set(tags["image_labels"][stem]) | {0}) for stem in tags["tagged"])
    assert labels["streams.tags"]["most_tags"] == most
    found = facts["sections"]["data"]["facts"]
    assert [found[where]["photos"] for where in ("streams.masks", "streams.tags", "evals.val")] == [10, 8, 4]
    assert "nothing stands in the way" in capsys.readouterr().out


def test_all_damage_at_once_is_code_1_and_every_section_appears(config, tmp_path, capsys):
    folder = tmp_path / "tiny"
    for damage in (value_200, missing_photos, too_many_tags):
        damage(folder)
    assert diagnose(from_config(config), extent(tmp_path)) == 1
    out = capsys.readouterr().out
    assert "value 200 at row 7" in out  # p03, whose photo is gone, is not looked at
    for part in ("p05.jpg does not exist", "p12.png: 5 tags", "shared and novel classes", "versions", "summary"):
        assert part in out


def test_many_cases_are_counted_and_the_first_are_printed(config, tmp_path, capsys):
    for i in range(12):
        write_mask(tmp_path / "tiny", f"stray{i:02d}", mask_of(tmp_path / "tiny", "p03"))
    assert diagnose(from_config(config), extent(tmp_path)) == 0
    out = capsys.readouterr().out
    assert "masks without photo: 12;" in out
    assert "stray09" in out
    assert "stray10" not in out
    assert "and 2 more" in out


def test_a_sample_is_spread_over_the_set_and_says_so(config, tmp_path):
    mask = mask_of(tmp_path / "tiny", "p09")
    write_mask(tmp_path / "tiny", "p09", np.where(mask == 0, 200, mask).astype(np.uint8))
    reports = set_report.inspect(from_config(config), 2)
    assert reports[0].scan.looked_at == 2
    assert any("p09.png: value 200" in fault.what for fault in reports[0].scan.faults)  # the last of ten
    notes = [f for f in data.labels_section(reports).findings if "looked at" in f.text and "classes" in f.text]
    assert all(f.level == "note" and "--full" in f.text for f in notes)


def test_classes_that_no_photo_shows_are_named(config, tmp_path):
    config.vocabulary.classes = (*tiny.NAMES, "pink")
    reports = set_report.inspect(from_config(config), None)
    found = [f for f in data.labels_section(reports).findings if "no photo shows" in f.text]
    assert [(f.where, f.level) for f in found] == [("streams.tags", "warning"), ("evals.val", "note")]
    assert all(f.text.endswith("shows 1 of its 6 classes: pink") for f in found)


def test_folders_by_split_and_class_folders(config, tmp_path):
    """The other layouts: images/<split>, masks/<split>, and a folder per class."""
    folder = tmp_path / "tiny"
    splits = json.loads((folder / "splits.json").read_text())
    for part in ("images", "masks"):
        (folder / part / "train").mkdir()
        for stem in splits["train"]:
            (folder / part / f"{stem}.png").rename(folder / part / "train" / f"{stem}.png")
    (folder / "splits.json").unlink()
    (folder / "masks" / "train" / "p01.png").unlink()
    (folder / "images" / "train" / "readme.txt").write_text("words")
    for name, stem in (("red", "p10"), ("blue", "p11"), ("pnik", "p12")):
        (tmp_path / "tagged" / name).mkdir(parents=True)
        (folder / "images" / f"{stem}.png").rename(tmp_path / "tagged" / name / f"{stem}.png")
    (tmp_path / "tagged" / "blue" / "p11.png").write_bytes(b"no picture")
    config.streams.tags.source.folder, config.streams.tags.source.class_folders = "", "tagged"
    config.streams.tags.source.split = "train"
    run = from_config(config)
    reports = {report.where: report for report in set_report.inspect(run, None)}
    masks = [fault.what for fault in reports["streams.masks"].photos.faults]
    assert any("masks/train/p01.png does not exist" in text for text in masks)
    assert any("readme.txt is no picture" in text for text in masks)
    assert reports["streams.masks"].scan.looked_at == 9
    tagged = reports["streams.tags"]
    assert [f.what.split(":")[0] for f in tagged.scan.faults if f.kind == "unreadable"] == [
        str(tmp_path / "tagged" / "blue" / "p11.png")
    ]
    assert any("tagged/pnik: 'pnik' is no class of the stream" in fault.what for fault in tagged.photos.faults)
    errors = [f for f in data.found_section(run, tuple(reports.values())).findings if f.level == "error"]
    assert any(
        f.where == "evals.val" and "images/val does not exist, it has the folders train" in f.text for f in errors
    )


def test_what_training_would_refuse_is_said_when_no_check_has_found_it(config, tmp_path):
    config.streams.masks.classes = ("background", "red", "grey")
    config.streams.tags.always_tags = ("grass",)
    run = from_config(config)
    errors = [f for f in data.found_section(run, set_report.inspect(run, None)).findings if f.level == "error"]
    assert any(f.where == "streams.tags" and "always_tags has 'grass'" in f.text for f in errors)


def test_a_set_without_a_usable_photo_shows_all_its_faults(config, tmp_path):
    listed_twice(tmp_path / "tiny")
    (tmp_path / "tiny" / "masks").rename(tmp_path / "tiny" / "mask")
    run = from_config(config)
    reports = set_report.inspect(run, None)
    (found,) = [f for f in data.found_section(run, reports).findings if f.where == "streams.masks"]
    assert (found.level, found.text.endswith("lists 'p03' twice: remove one")) == ("error", True)
    assert [detail.rpartition("/")[2] for detail in found.details] == [
        "splits.json: split 'train' lists 'p03' twice",
        "masks does not exist",
    ]
