"""Hundreds of classes from captions: what the config makes of the names of three data sets."""

import collections
import json
from pathlib import Path

import jax
import numpy as np
import pytest
from PIL import Image

from configs import captions
from data_pipelines.caption_tags import write_tags
from larvseg_jax import assemble
from larvseg_jax.config import from_config
from larvseg_jax.devices.mesh import make_mesh
from larvseg_jax.vocabulary import IGNORE_LABEL
from larvseg_jax.vocabulary.class_lists import raw

WORDNET = Path("/usr/share/wordnet")  # where Debian's package puts it
VOC = raw("voc_20")["classes_with_background"]
COCO = ["background", "person", "couch", "handbag", "tv", "cell phone", "banana"]


def write_folder(folder, names, splits, mask=None):
    """Photo "a" of 6 x 4 pixels, and its mask of one row of class ids on background."""
    (folder / "images").mkdir(parents=True)
    Image.fromarray(np.zeros((4, 6, 3), np.uint8)).save(folder / "images" / "a.png")
    if mask is not None:
        pixels = np.zeros((4, 6), np.uint8)
        pixels[0, : len(mask)] = [names.index(name) for name in mask]
        (folder / "masks").mkdir()
        Image.fromarray(pixels).save(folder / "masks" / "a.png")
    (folder / "classes.json").write_text(json.dumps({"names": names, "ignore": 255}))
    (folder / "splits.json").write_text(json.dumps(splits))


@pytest.fixture
def run(tmp_path):
    """The config's, on one photo of each data set."""
    shown = [captions.NAMED.index(name) for name in ("puppy", "dog", "couch", "bike", "snow", "cat")]
    write_folder(tmp_path / "flickr8k_tags", captions.NAMED, {"train": ["a"], "image_labels": {"a": shown}})
    masked = ("person", "sofa", "dog", "motorbike", "tvmonitor")
    write_folder(tmp_path / "voc12_animals", VOC, {"suggested": {"train_masks": ["a"]}}, masked)
    write_folder(tmp_path / "coco_mini", COCO, {"train": ["a"], "val": ["a"]}, COCO[1:])
    config = captions.get_config("larvseg,learn=0,side=224")
    config.data_root = str(tmp_path)
    return from_config(config)


def named(stream, columns):
    return [stream.label_set.names[c] if c != IGNORE_LABEL else None for c in columns]


def test_each_data_set_is_read_under_the_names_of_the_vocabulary(run):
    streams = assemble.open_streams(run)
    masks, tags = streams["masks"], streams["tags"]
    # Base classes and background; what tags are to teach is not learnt from masks.
    label = masks.source[0]["label"]
    assert named(masks, label[0]) == ["person", "sofa", None, None, "tvmonitor", "background"]
    row = tags.row(0, np.random.default_rng(0))
    assert sorted(filter(None, named(tags, row["tags"]))) == ["background", "cat", "dog", "snow", "sofa"]
    assert {*run.vocabulary.classes} - {*tags.label_set.names} == {"pottedplant", "tvmonitor", "diningtable"}
    for evaluator in assemble.make_evaluators(run, make_mesh(1, 1, jax.devices()[:1])).values():
        # A sofa and a banana are none of the classes that are measured.
        assert named(evaluator, evaluator.source[0]["label"][0]) == [
            "person",
            None,
            "purse",
            "tvmonitor",
            "phone",
            None,
        ]


def test_no_name_means_two_classes():
    words = captions.get_config().vocabulary
    assert len({*words.classes}) == 1 + len(words.base) + len(words.novel)
    named = {*words.classes, *dict(words.aliases), *captions.AMBIGUOUS}
    assert {*captions.NAMED} <= named
    assert not {*words.classes} & {*dict(words.aliases)}


def test_those_measured_are_all_frequent_classes_that_both_have(shared):
    """Counted in the photos' lists of classes."""
    folder = shared / "realdata" / "coco_mini"
    names = json.loads((folder / "classes.json").read_text())["names"]
    labels = json.loads((folder / "splits.json").read_text())["image_labels"]
    photos = collections.Counter(i for of_photo in labels.values() for i in {*of_photo})
    words = captions.get_config().vocabulary
    known = dict(words.aliases) | {name: name for name in words.classes}
    frequent = {known.get(names[i]) for i, count in photos.items() if i and count >= 20}
    assert {*captions.SHARED} == frequent - {None}


def test_the_list_is_that_of_the_rule(shared, tmp_path):
    if not (WORDNET / "index.noun").exists():
        pytest.skip(f"no WordNet in {WORDNET} (Debian: wordnet-base)")
    write_tags(shared / "realdata" / "flickr8k", WORDNET, tmp_path / "tags", len(captions.NAMED))
    assert tuple((tmp_path / "tags" / "classes.txt").read_text().split()) == captions.NAMED
