"""Photos with a list of tags: what lists may look like, what is read of them, and every mistake by name."""

import json
import unicodedata
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from data_pipelines.sources import SourceConfig, open_source
from data_pipelines.tag_lists import read_tag_list
from data_pipelines.tagged_photos import list_tagged
from larvseg_jax.errors import DataError, UserError
from larvseg_jax.vocabulary import LabelSet, Vocabulary

WORDS = Vocabulary(("road", "car", "bicycle", "person", "fish, salmon"), base=("road", "car"), novel=("bicycle",))
PHOTOS = ("a.png", "b/c.png", "b/d.png")


def folder_with(tmp_path, name, text):
    folder = tmp_path / "tagged"
    for i, photo in enumerate(PHOTOS):
        (folder / photo).parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(np.full((4, 5, 3), i, np.uint8)).save(folder / photo)
    (folder / name).write_text(text)
    return folder


def source(folder, **changes):
    config = SourceConfig(tagged=folder.name, **changes)
    return open_source(config, folder.parent, WORDS.label_set(), "tags")


EXPECTED = {"a.png": {"car", "bicycle"}, "b/c.png": {"bicycle", "person"}, "b/d.png": {"person"}}

COCO = {
    "images": [{"id": 10 + i, "file_name": photo} for i, photo in enumerate(EXPECTED)]
    + [{"id": 9, "file_name": "e.png"}],
    "categories": [{"id": 5 * i, "name": name} for i, name in enumerate(("person", "car", "bicycle"))],
    "annotations": [
        {"image_id": image, "category_id": category}
        for image, category in ((10, 5), (10, 10), (10, 5), (11, 10), (11, 0), (12, 0))
    ],
}

SAME = {
    "cells": ("tags.csv", 'file,tags\na.png,"car, bicycle"\nb/c.png,bicycle;person\n./b/d.png,person\n'),
    "columns": (
        "tags.csv",
        "filename,tag 1,tag 2\r\na.png,car,bicycle\r\nb\\c.png,bicycle,person\r\nb/d.png,person,\r\n",
    ),
    "a line a tag": ("tags.csv", "image,label\na.png,car\na.png,bicycle\nb/c.png,bicycle|person\nb/d.png,person\n\n"),
    "marks": ("tags.csv", "filename, car, bicycle, person\na.png,1,1,0\nb/c.png,0,1,1\nb/d.png,0,,1\n"),
    "tabs": ("tags.csv", "\ufefffile\ttags\na.png\tcar;bicycle\nb/c.png\tperson,bicycle\nb/d.png\tperson\n"),
    "semicolons": ("tags.csv", "file;tags\na.png;car,bicycle\nb/c.png;bicycle|person\nb/d.png;person\n"),
    "json list": (
        "tags.json",
        json.dumps([{"file": photo, "tags": sorted(tags)} for photo, tags in EXPECTED.items()]),
    ),
    "json": ("tags.json", json.dumps({photo: sorted(tags) for photo, tags in EXPECTED.items()})),
}


@pytest.mark.parametrize(("name", "text"), SAME.values(), ids=SAME)
def test_every_kind_of_list_gives_the_same_tags(name, text, tmp_path):
    found = source(folder_with(tmp_path, name, text))
    assert len(found) == 3
    for i, photo in enumerate(PHOTOS):
        example = found[i]
        assert example["id"] == photo
        assert {WORDS.classes[column] for column in example["tags"]} == EXPECTED[photo]
        assert example["tags"].tolist() == sorted(example["tags"].tolist())
        assert (example["image"] == i).all()


def test_names_with_commas_belong_into_json(tmp_path):
    text = json.dumps({"a.png": ["fish, salmon"], "b/c.png": ["road"], "b/d.png": ["road"]})
    listing = list_tagged(folder_with(tmp_path, "tags.json", text))
    assert listing.names == ("fish, salmon", "road")
    assert listing.most_tags == 1


def test_json_goes_before_csv(tmp_path):
    folder = folder_with(tmp_path, "tags.csv", "file,tags\nnothing.png,car\n")
    (folder / "tags.json").write_text(json.dumps(dict.fromkeys(PHOTOS, ["car"])))
    assert list_tagged(folder).names == ("car",)


def test_accents_are_one_letter_however_they_are_stored(tmp_path):
    folder = folder_with(tmp_path, "tags.csv", "")
    Image.fromarray(np.zeros((2, 2, 3), np.uint8)).save(folder / unicodedata.normalize("NFD", "é.png"))
    lines = "".join(f"{photo},café\n" for photo in (*PHOTOS, "é.png"))
    (folder / "tags.csv").write_text(unicodedata.normalize("NFD", f"file,tags\n{lines}"), encoding="utf-8")
    words = Vocabulary(("café", "b"), base=("b",), novel=("café",))
    found = open_source(SourceConfig(tagged="tagged"), tmp_path, words.label_set(), "tags")
    assert [found[i]["tags"].tolist() for i in range(len(found))] == [[0]] * 4


GOOD = "file,tags\na.png,car\nb/c.png,car\nb/d.png,road\n"

WRONG = {
    "no header": ("tags.csv", "a.png,car\n", r"begins with 'a\.png,car': its first line must name the columns"),
    "empty": ("tags.csv", "", r"begins with '': its first line must name the columns, file,tags"),
    "one column": ("tags.csv", "file\na.png\n", "begins with 'file': its first line must name the columns"),
    "no photo": ("tags.csv", "file,tags\n", "lists no photo: write a line for each"),
    "missing": (
        "tags.csv",
        GOOD + "e.png,car\nf.png,car\n",
        r"there is no .*/e\.png \(2 of 5 files missing\): add",
    ),
    "no tag": ("tags.csv", GOOD.replace("b/d.png,road", "b/d.png,"), r"'b/d\.png' has no tag: name what it shows"),
    "unknown": ("tags.csv", GOOD.replace("road", "raod"), r"'b/d\.png' has the tag 'raod', .* did you mean road\?"),
    "marks": ("tags.csv", "file,car,road\na.png,1,0\nb/c.png,1\n", r"'b/c\.png' has 1 marks for 2 classes"),
    "no list of names": ("tags.json", '{"a.png": "car"}', r"'a\.png' has the tags 'car': give a list of names"),
    "a number": ("tags.json", '{"a.png": [1]}', r"'a\.png' has the tags \[1\]: give a list of names"),
    "no photos": ("tags.json", "[]", "lists no photo"),
    "a list of names": ("tags.json", '["a.png"]', r"holds 'a\.png' where a photo and its tags are to stand"),
    "a file without tags": ("tags.json", '[{"file": "a.png"}]', "where a photo and its tags are to stand"),
    "coco": ("tags.json", json.dumps(COCO), r"tags\.json: is an annotation file of COCO's form, .*: write {\"a\.jpg\""),
    "coco, captions": (
        "tags.json",
        json.dumps({"images": COCO["images"], "annotations": [{"image_id": 1, "caption": "a car"}]}),
        r"tags\.json: is an annotation file of COCO's form",
    ),
    "cut off": ("tags.json", '{"a.png": [', "not valid JSON"),
}


def test_the_lines_for_annotations_of_coco_make_such_a_list(tmp_path, monkeypatch):
    (tmp_path / "mydata" / "tagged").mkdir(parents=True)
    (tmp_path / "instances.json").write_text(json.dumps(COCO))
    monkeypatch.chdir(tmp_path)
    page = (Path(__file__).parents[2] / "docs" / "own_data.md").read_text()
    exec(page.split("```python\n")[1].split("```")[0], {})
    tags, faults = read_tag_list(tmp_path / "mydata" / "tagged" / "tags.json")
    assert {photo: set(names) for photo, names in tags.items()} == EXPECTED
    assert not faults


@pytest.mark.parametrize(("name", "text", "message"), WRONG.values(), ids=WRONG)
def test_mistakes_are_named(name, text, message, tmp_path):
    with pytest.raises(UserError, match=message) as caught:
        source(folder_with(tmp_path, name, text))
    assert "\n" not in str(caught.value)


def test_what_is_no_text_is_named(tmp_path):
    folder = folder_with(tmp_path, "tags.csv", "")
    (folder / "tags.csv").write_bytes(b"file,tags\na.png,\xff\n")
    with pytest.raises(UserError, match=r"tags\.csv: not UTF-8"):
        source(folder)
    (folder / "tags.csv").write_bytes(b'file,tags\na.png,"' + b"x" * 200_000 + b'"\n')
    with pytest.raises(UserError, match=r"tags\.csv: not valid CSV \(field larger"):
        source(folder)


def test_pictures_that_are_not_listed_are_said_and_left_out(tmp_path):
    folder = folder_with(tmp_path, "tags.csv", "file,tags\na.png,car\n")
    listing = list_tagged(folder)
    assert [fault.kind for fault in listing.faults] == ["unlisted", "unlisted"]
    assert "b/c.png is not in tags.csv (2 of 3 pictures are not listed)" in str(listing.faults[0].error())
    assert len(source(folder)) == 1  # a warning, the run goes on


def test_other_files_and_links_are_named(tmp_path):
    folder = folder_with(tmp_path, "tags.csv", GOOD)
    (folder / "b" / "notes.txt").write_text("x")
    (folder / "gone.png").symlink_to("nowhere.png")
    (folder / ".DS_Store").write_text("x")
    said = [fault.what for fault in list_tagged(folder).faults]
    assert [text.partition(" is ")[2].partition(" (")[0] for text in said] == [
        "no picture",
        "a link that leads nowhere",
    ]
    with pytest.raises(DataError, match=r"notes\.txt is no picture"):
        source(folder)


def test_it_has_neither_splits_nor_masks(tmp_path):
    folder = folder_with(tmp_path, "tags.csv", GOOD)
    with pytest.raises(UserError, match="a list of tags has no splits: leave `split` at 'train'"):
        source(folder, split="val")
    with pytest.raises(UserError, match=r"tagged: a list of tags has no masks: use them in a tag_stream"):
        open_source(SourceConfig(tagged="tagged"), tmp_path, WORDS.label_set(), "masks")
    (folder / "tags.csv").unlink()
    with pytest.raises(DataError, match=r"tagged has no tags\.json or tags\.csv: write one: file,tags and a line"):
        source(folder)
    with pytest.raises(DataError, match="none does not exist: make it"):
        source(tmp_path / "none")


def test_classes_that_several_columns_stand_for_are_one_tag(tmp_path):
    folder_with(tmp_path, "tags.csv", GOOD.replace("a.png,car", "a.png,car;auto"))
    merged = LabelSet(
        ("car", "road"), np.arange(2, dtype=np.int32), np.ones(2, np.float32), {"car": 0, "auto": 0, "road": 1}
    )
    found = open_source(SourceConfig(tagged="tagged"), tmp_path, merged, "tags")
    assert found[0]["tags"].tolist() == [0]


def test_the_order_of_lines_is_no_matter(tmp_path):
    lines = GOOD.splitlines()
    folder = folder_with(tmp_path, "tags.csv", "\n".join([lines[0], *reversed(lines[1:])]))
    assert list_tagged(folder).photos == PHOTOS
    assert read_tag_list(folder / "tags.csv")[0]["b/d.png"] == ("road",)


@pytest.mark.parametrize("written", ["c.png", "tagged/b/c.png", "/data/mine/b/c.png"])
def test_a_path_from_elsewhere_is_told_how_to_be_written(written, tmp_path):
    folder = folder_with(tmp_path, "tags.csv", GOOD.replace("b/c.png", written))
    with pytest.raises(DataError, match=r"files are given as seen from .*tagged: write 'b/c\.png'"):
        source(folder)


def test_a_link_that_leads_back_is_not_followed(tmp_path):
    folder = folder_with(tmp_path, "tags.csv", GOOD)
    (folder / "b" / "again").symlink_to(folder)
    (folder / "also").symlink_to(folder / "b")
    assert len(source(folder)) == 3
