"""The doctor on tagged photos: scenes with one tag, classes by two names, what looks misfiled, counts, the sheet."""

import collections
import dataclasses
import re

import numpy as np
import pytest
from PIL import Image

from configs import own_data
from larvseg_jax.config import from_config
from larvseg_jax.doctor import class_counts, classes, data, misfiled, set_report, sheet, tagged
from larvseg_jax.doctor.misfiled import evenly
from larvseg_jax.doctor.scan import Look, Scan

NAMES = ("sky", "building", "road", "car", "tree")
SIDE = 40


def street(seed, things=5):
    """Sky, building, road, and on them a car and a tree: always about the same place."""
    rng = np.random.default_rng(seed)
    mask = np.zeros((SIDE, SIDE), np.uint8)
    mask[14:] = 1
    mask[26 + rng.integers(0, 3) :] = 2
    if things > 3:
        left = rng.integers(2, 20)
        mask[28:34, left : left + 10] = 3
        mask[8:26, 30:36] = 4
    colours = np.array([[150, 190, 240], [150, 110, 90], [80, 80, 85], [200, 30, 30], [40, 120, 40], [250, 220, 40]])
    return mask, (colours[mask] + rng.integers(0, 12, (SIDE, SIDE, 3))).astype(np.uint8)


def save(pixels, path):
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(pixels).save(path)


@pytest.fixture
def folder(tmp_path):
    """Street scenes with masks, and more of them with tags: each in the folder of one thing that it shows."""
    for split, count in (("train", 24), ("val", 2)):
        for i in range(count):
            mask, photo = street(i)
            save(photo, tmp_path / "images" / split / f"p{i}.png")
            save(mask, tmp_path / "masks" / split / f"p{i}.png")
    for i in range(8):
        save(street(100 + i)[1], tmp_path / "tagged" / ("bicycle", "hydrant")[i % 2] / f"{i}.png")
    (tmp_path / "classes.txt").write_text("\n".join(NAMES))
    return tmp_path


def inspected(folder):
    run = from_config(own_data.get_config(str(folder)))
    return run, set_report.inspect(run, None)


def lines(section):
    return [f"{finding.level} {finding.where}: {finding.text}" for finding in section.findings]


def test_whole_scenes_with_one_tag_are_said(folder):
    section = tagged.tagged_section(*inspected(folder))
    (warning,) = lines(section)
    assert warning.startswith("warning streams.tagged: its photos look like those of streams.masks, which show 5.0")
    assert "docs/own_data.md" in warning
    assert section.facts["streams.tagged"]["tags_of_a_photo"] == 1.0


def with_list(folder):
    for i in range(8):
        (folder / "tagged" / ("bicycle", "hydrant")[i % 2] / f"{i}.png").rename(folder / "tagged" / f"{i}.png")
    for name in ("bicycle", "hydrant"):
        (folder / "tagged" / name).rmdir()
    rows = [f"{i}.png,{('bicycle', 'hydrant')[i % 2]};sky;building;road;car;tree" for i in range(8)]
    (folder / "tagged" / "tags.csv").write_text("\n".join(["file,tags", *rows]))


def object_pictures(folder):
    rng = np.random.default_rng(0)
    for i in range(8):
        pixels = np.repeat(np.repeat(rng.integers(0, 256, (4, 4, 3), dtype=np.uint8), 10, 0), 10, 1)
        save(pixels, folder / "tagged" / ("bicycle", "hydrant")[i % 2] / f"{i}.png")


def few_classes(folder):
    for split in ("train", "val"):
        for path in (folder / "masks" / split).iterdir():
            save(np.minimum(np.array(Image.open(path)), 1), path)


@pytest.mark.parametrize("mended", [with_list, object_pictures, few_classes])
def test_other_tagged_photos_are_well(folder, mended):
    mended(folder)
    assert [line.split()[0] for line in lines(tagged.tagged_section(*inspected(folder)))] == ["ok"]


def test_without_tags_there_is_nothing_to_compare(folder):
    for path in (folder / "tagged").rglob("*.png"):
        path.unlink()
    for name in ("bicycle", "hydrant"):
        (folder / "tagged" / name).rmdir()
    (line,) = lines(tagged.tagged_section(*inspected(folder)))
    assert line == "ok tags: there are not both photos with masks and photos with tags"


def test_likeness_is_the_ratio_of_nearest_neighbours():
    others = np.array([[0.0, 0], [1, 0], [3, 0]], np.float32)  # nearest: 1, 1, 2
    photos = np.array([[0.0, 2], [1, 4], [3, 8]], np.float32)  # nearest: 2, 4, 8
    assert tagged.likeness(photos, others) == 4.0
    assert np.isnan(tagged.likeness(photos, others[:2]))
    assert np.isnan(tagged.likeness(photos[:0], others))
    assert np.isnan(tagged.likeness(photos, np.zeros((4, 2), np.float32)))


@pytest.mark.parametrize(
    ("names", "said"),
    [
        (("car", "cars", "sky"), "'car' and 'cars' are spelt alike"),
        (("Traffic light", "traffic_light", "sky"), "'Traffic light' and 'traffic_light' are spelt alike"),
        (("body", "bodies", "sky"), "'body' and 'bodies' are spelt alike"),
        (("car", "automobile", "sky"), "'car' and 'automobile' are two words for one thing in WordNet"),
        (("car", "bus", "gas", "glass", "sky"), None),
    ],
)
def test_classes_by_two_names_are_said(folder, names, said):
    for split in ("train", "val"):
        for path in (folder / "masks" / split).iterdir():
            save(np.minimum(np.array(Image.open(path)), len(names) - 1), path)
    (folder / "classes.txt").write_text("\n".join(names))
    run, _ = inspected(folder)
    found = [line for line in lines(classes.classes_section(run)) if line.startswith("warning vocabulary: '")]
    assert [line.removeprefix("warning vocabulary: ").partition(":")[0] for line in found] == ([said] if said else [])


def test_photos_and_pixels_of_each_class_are_counted(folder):
    run, reports = inspected(folder)
    counts = {one.name: one for one in class_counts.class_counts(run, reports)}
    train = [street(i)[0] for i in range(24)]
    places = {report.where: place for place, report in enumerate(reports)}
    for i, name in enumerate(NAMES):
        found = counts[name].counts[places["streams.masks"]]
        assert found.photos == sum((mask == i).any() for mask in train)
        assert found.pixels == pytest.approx(np.mean([(mask == i).mean() for mask in train]))
    assert counts["hydrant"].counts[places["streams.tagged"]] == (4, None)
    assert counts["hydrant"].group == "novel"
    section = class_counts.counts_section(run, reports, list(counts.values()))
    (line,) = lines(section)
    assert line.startswith("note classes: classes with fewer than 10 photos: bicycle 4, hydrant 4:")
    assert section.facts["streams.masks"]["car"]["photos"] == 24
    assert list(counts)[:2] == ["bicycle", "hydrant"]  # the rarest first


def test_a_name_that_stands_twice_is_one_class(folder):
    (folder / "classes.txt").write_text("sky\nbuilding\nroad\nroad\ntree\n")
    run, reports = inspected(folder)
    counts = {one.name: one for one in class_counts.class_counts(run, reports)}
    found = counts["road"].counts[[report.where for report in reports].index("streams.masks")]
    masks = [street(i)[0] for i in range(24)]
    assert found.photos == 24
    assert found.pixels == pytest.approx(np.mean([np.isin(mask, [2, 3]).mean() for mask in masks]))
    rarely = Scan(24, 24, collections.Counter({2: 5, 3: 4}))
    (counts,) = [
        one
        for one in class_counts.class_counts(run, [dataclasses.replace(reports[0], scan=rarely)])
        if one.name == "road"
    ]
    assert counts.counts[0].photos == 9


def test_photos_with_many_tags_are_not_shown_once_for_each(folder):
    with_list(folder)
    run, reports = inspected(folder)
    sheet.sheet_section(run, reports, [], folder / "sheet.html")
    page = (folder / "sheet.html").read_text()
    part = page.partition("<h2>streams.tagged</h2>")[2].partition("<h3>as the network")[0]
    shown = re.findall(r"<b>([^<]+)</b>", part)
    assert len(shown) == len(set(shown)) == 4
    assert "bicycle" in part
    assert "hydrant" in part


def test_the_sheet_shows_a_tagged_photo_of_every_class(folder):
    for i in range(36):
        save(street(200 + i)[1], folder / "tagged" / f"thing {i}" / "a.png")
        save(street(300 + i)[1], folder / "tagged" / f"thing {i}" / "b.png")
    (folder / "tagged" / "thing 7" / "a.png").write_bytes(b"broken")
    run, reports = inspected(folder)
    counts = class_counts.class_counts(run, reports)
    sheet.sheet_section(run, reports, counts, folder / "sheet.html")
    page = (folder / "sheet.html").read_text()
    part = page.partition("<h2>streams.tagged</h2>")[2].partition("<h3>as the network")[0]
    shown = re.findall(r"<b>([^<]+)/[^<]+</b>", part)
    assert sorted(shown) == sorted(["bicycle", "hydrant", *(f"thing {i}" for i in range(36))])
    table = page.partition("<h2>photos of each class</h2>")[2]
    assert re.search(r"<td>bicycle</td><td>novel</td>.*?>4<", table, re.S)


def test_examples_of_a_class_are_spread_over_all_its_photos():
    scan = Scan(total=1000)
    for i in range(1000):
        scan.add(Look(f"{i}", i, (0,) if i % 10 else (0, 1), 1, 0, False, (), ()))
    assert scan.photos_per_class == {0: 1000, 1: 100}
    for kept, every in ((scan.examples[0], 1), (scan.examples[1], 10)):
        assert 20 <= len(kept) <= 64
        steps = np.diff(kept)
        assert len(set(steps.tolist())) == 1
        assert steps[0] % every == 0
        assert kept[-1] > 900
    assert evenly({3: list(range(100)), 5: [7]}, 6) == [(0, 3), (25, 3), (50, 3), (74, 3), (99, 3), (7, 5)]


def test_photos_far_from_their_class_are_found():
    rng = np.random.default_rng(1)
    vectors = np.concatenate([c + 0.05 * rng.normal(size=(10, 3)) for c in np.eye(3)])
    tags = np.repeat([4, 6, 9], 10)
    vectors[3] = vectors[25]  # in the folder of class 4, looks like 9
    vectors /= np.linalg.norm(vectors, axis=1, keepdims=True)
    found = misfiled.misfiled(np.arange(100, 130), tags, vectors.astype(np.float32))
    assert found == [(103, 4, 9)]
    # A photo does not count for its own class: this one is like none of its others, and a little like class 9.
    axes = np.eye(4)
    alone = np.concatenate(
        [np.repeat(axes[:1], 9, 0), [0.9968 * axes[3] + 0.08 * axes[2]], np.repeat(axes[2:3], 10, 0)]
    )
    found = misfiled.misfiled(np.arange(20), np.repeat([4, 9], 10), alone.astype(np.float32))
    assert found == [(9, 4, 9)]
    assert misfiled.misfiled(np.arange(10), tags[:10], vectors[:10].astype(np.float32)) == []


def test_misfiled_photos_are_said_and_shown(folder, monkeypatch):
    """By a network that sees the mean colour; nothing is looked at without one."""
    for i in range(8):
        (folder / "tagged" / ("bicycle", "hydrant")[i % 2] / f"{i}.png").unlink()
    for place, colour in enumerate(([250, 20, 20], [20, 20, 250])):
        for i in range(8):
            own = colour if (place, i) != (1, 5) else [240, 30, 20]
            pixels = np.clip(np.array(own) + np.random.default_rng(i).integers(-20, 20, (9, 9, 3)), 0, 255)
            save(pixels.astype(np.uint8), folder / "tagged" / ("bicycle", "hydrant")[place] / f"{i}.png")
    run, reports = inspected(folder)
    assert misfiled.with_misfiled(run, reports) == reports
    monkeypatch.setattr(misfiled, "check_there", lambda _: None)
    features = dataclasses.make_dataclass("Features", ["embed"])(lambda image: (image[:1, :1],))
    monkeypatch.setattr(misfiled, "of_backbone", lambda *_: (features, ""))
    run = dataclasses.replace(run, pretrained="x.npz")
    found = misfiled.with_misfiled(run, reports)
    (line,) = [finding for finding in tagged.tagged_section(run, found).findings if finding.level == "note"]
    assert line.details == ("hydrant/5.png (hydrant) looks more like bicycle",)
    sheet.sheet_section(run, found, [], folder / "sheet.html")
    page = (folder / "sheet.html").read_text()
    assert "perhaps in the wrong folder" in page
    assert "looks more like bicycle" in page


def test_pictures_that_the_list_leaves_out_are_a_warning(folder):
    with_list(folder)
    save(street(0)[1], folder / "tagged" / "more.png")
    run, reports = inspected(folder)
    found = [line for line in lines(data.found_section(run, reports)) if "does not name" in line]
    assert found == [
        "warning streams.tagged: pictures that the list does not name: 1; they are not used: add them to it"
    ]
