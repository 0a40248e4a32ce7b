"""The doctor on prepared (TFDS) data sets: damage, published numbers, what the preparation left out, releases."""

import dataclasses
import io
import json
import shutil
from pathlib import Path

import numpy as np
import pytest
import tensorflow_datasets as tfds
from PIL import Image

from configs import common
from data_pipelines.sources import SourceConfig
from larvseg_jax.config import from_config
from larvseg_jax.doctor import classes, data, set_report
from larvseg_jax.doctor.photo_sets import open_photo_set
from larvseg_jax.doctor.scan import View, look_at
from larvseg_jax.vocabulary import Vocabulary
from larvseg_jax.vocabulary.class_lists import class_list
from tests import tiny

REPOSITORY = Path(__file__).parents[2]
SIZE = (24, 30)


def picture(i: int) -> bytes:
    file = io.BytesIO()
    pixels = np.random.default_rng(i).integers(0, 256, (*SIZE, 3), dtype=np.uint8)
    Image.fromarray(pixels).save(file, "JPEG")
    return file.getvalue()


def mask(i: int) -> np.ndarray:
    ids = np.zeros(SIZE, np.uint16)
    ids[4:12, 5:20] = 1 + i % 4
    ids[0] = 65535
    return ids


def good(i: int) -> dict:
    ids = mask(i)
    return {"id": f"p{i}", "image": picture(i), "mask": ids, "tags": [v for v in np.unique(ids).tolist() if v < 65535]}


def spoilt(i: int) -> dict:
    """Photos 1..5 of the split `spoilt`, each with a damage of its own."""
    example = good(i)
    if i == 1:
        example["mask"][5, 6] = 200
    elif i == 2:
        example["mask"] = np.pad(example["mask"], ((0, 0), (0, 3)))
    elif i == 3:
        example["image"] = example["image"][:-200]
    elif i == 4:
        example["mask"] = np.full_like(example["mask"], 65535)
        example["tags"] = []
    elif i == 5:
        example["mask"] = np.where(example["mask"] == 2, np.uint16(3), example["mask"])  # ids swapped after the tags
    return example


class Toy(tfds.core.GeneratorBasedBuilder):
    """Eight good photos, six of which five are spoilt, four for the evaluation."""

    VERSION = tfds.core.Version("1.0.0")

    def _info(self):
        features = {
            "id": tfds.features.Text(),
            "image": tfds.features.Image(shape=(None, None, 3), encoding_format="jpeg"),
            "mask": tfds.features.Image(shape=(None, None, 1), dtype=np.uint16, encoding_format="png"),
            "tags": tfds.features.Sequence(tfds.features.ClassLabel(names=tiny.NAMES)),
        }
        return tfds.core.DatasetInfo(builder=self, features=tfds.features.FeaturesDict(features))

    def _split_generators(self, dl_manager):
        return {
            "train": self._examples([good(i) for i in range(8)]),
            "spoilt": self._examples([spoilt(i) for i in range(6)]),
            "val": self._examples([good(i) for i in range(4)]),
        }

    def _examples(self, examples):
        for example in examples:
            file = io.BytesIO()
            Image.fromarray(example["mask"]).save(file, "PNG")
            yield example["id"], {**example, "mask": file.getvalue()}

    def _generate_examples(self):
        """Abstract in TFDS; the splits call `_examples` themselves."""


@pytest.fixture(scope="module")
def root(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("prepared")
    Toy(data_dir=folder, file_format="array_record").download_and_prepare()
    metadata = {
        "class_list": "toy",
        "layout": "masks of the second kind",
        "expected": {"train": 9, "val": 4},
        "photos_per_class": {"train": [8, 2, 2, 2, 0], "val": [4, 1, 1, 1, 1]},
        "unreadable": {"train": [{"file": "far/lost.jpg", "reason": "cut short"}], "val": []},
    }
    (folder / "toy" / "1.0.0" / "metadata.json").write_text(json.dumps(metadata))
    return folder


@pytest.fixture
def config(root, tmp_path):
    config = tiny.get_config()
    config.data_root, config.workdir = str(root), str(tmp_path / "run")
    config.streams.masks.source = common.source(tfds="toy/1.0.0")
    config.streams.tags.source = common.source(tfds="toy/1.0.0")
    config.evals.val.source = common.source(tfds="toy/1.0.0", split="val")
    return config


def sections(config, photos=None):
    run = from_config(config)
    reports = set_report.inspect(run, photos)
    return data.found_section(run, reports), data.unreadable_section(reports), data.labels_section(reports)


def lines(section, where):
    return [(f.level, f.text, f.details) for f in section.findings if f.where == where]


def test_numbers_and_what_was_left_out_are_told(config, root):
    found, unreadable, labels = sections(config)
    level, text, _ = lines(found, "streams.masks")[0]
    assert level == "warning"
    assert "split 'train': 8 photos, from masks of the second kind, 1 fewer than the published 9 (1 of them" in text
    assert lines(found, "evals.val")[0][:2] == (
        "ok",
        f"{root}/toy/1.0.0, split 'val': 4 photos, from masks of the second kind, as published",
    )
    assert lines(unreadable, "streams.masks")[0] == (
        "warning", "files that the preparation could not read and left out: 1", ("far/lost.jpg: cut short",),
    )  # fmt: skip
    # The counts of the preparation go before those of the sample: no training photo shows grey.
    shown = [f for f in labels.findings if "no photo shows" in f.text]
    assert [(f.where, f.level) for f in shown] == [("streams.tags", "warning")]
    assert shown[0].text.endswith("1 of its 5 classes: grey")
    assert not [f for section in (found, unreadable, labels) for f in section.findings if f.level == "error"]


def test_each_damage_is_named(config, root):
    config.streams.masks.source.split = "spoilt"
    found, unreadable, labels = sections(config)
    name = f"{root}/toy/1.0.0, split 'spoilt', photo"
    (broken,) = [f for f in unreadable.findings if f.level == "error"]
    assert broken.where == "streams.masks"
    assert [d.startswith(f"{name} 'p3': no readable picture") for d in broken.details] == [True]
    errors = {f.text.partition(";")[0]: f.details for f in labels.findings if f.where == "streams.masks" and f.details}
    assert errors["mask values that are no class: 1 among all 6 photos"] == (
        f"{name} 'p1': value 200 at row 5, column 6 (1 such pixels) is not among 0..4 nor 65535 (ignore)",
    )
    assert errors["photo and mask of different size: 1 among all 6 photos"] == (
        f"{name} 'p2': mask of 33x24 pixels, photo of 30x24",
    )
    assert errors["masks that lack a class of the tags: 1 among all 6 photos"] == (
        f"{name} 'p5': tagged 2 (green); the mask shows 0 (background), 3 (blue)",
    )
    assert errors["masks without a class of the stream: 1 among all 6 photos"] == (
        f"{name} 'p4': nothing in it that the stream knows",
    )
    levels = [f.level for f in labels.findings if f.where == "streams.masks" and f.details]
    assert sorted(levels) == ["error", "error", "error", "warning"]  # the empty mask only teaches nothing


def test_a_set_prepared_with_another_class_list_is_told(config, root, tmp_path):
    shutil.copytree(root / "toy", tmp_path / "toy")
    file = tmp_path / "toy" / "1.0.0" / "metadata.json"
    file.write_text(json.dumps(json.loads(file.read_text()) | {"class_list": "voc_20"}))
    config.data_root = str(tmp_path)
    found, _, _ = sections(config, photos=1)
    errors = [f.text for f in found.findings if f.level == "error"]
    assert len(errors) == 3
    first = json.loads((REPOSITORY / "larvseg_jax" / "vocabulary" / "lists" / "voc_20.json").read_text())["classes"]
    place, was, now = next((i, *pair) for i, pair in enumerate(zip(tiny.NAMES, first)) if pair[0] != pair[1])  # noqa: B905
    assert f"class {place} was {was!r} when it was prepared and is {now!r} now: prepare it anew" in errors[0]


def test_too_many_tags_in_a_crop_are_named(config):
    config.streams.tags.update(tags_from="crop", max_labels=1, always_tags=())
    _, _, labels = sections(config)
    (found,) = [f for f in labels.findings if f.where == "streams.tags" and f.level == "error"]
    assert len(found.details) == 8
    assert "photo 'p0': 2 tags, and max_labels is 1" in " ".join(found.details)


def test_a_damaged_record_is_named(config, root, tmp_path):
    shutil.copytree(root / "toy", tmp_path / "toy")
    shard = next((tmp_path / "toy" / "1.0.0").glob("*train*array_record*"))
    content = bytearray(shard.read_bytes())
    content[bytes(content).index(picture(1)[300:320])] ^= 255
    shard.write_bytes(bytes(content))
    config.data_root = str(tmp_path)
    _, unreadable, _ = sections(config)
    (found,) = [f for f in unreadable.findings if f.where == "streams.masks" and f.level == "error"]
    assert len(found.details) == 1
    assert "split 'train', record" in found.details[0]


def test_a_set_without_masks_is_named_and_looked_at_all_the_same(config, root, tmp_path):
    shutil.copytree(root / "toy", tmp_path / "toy")
    file = tmp_path / "toy" / "1.0.0" / "features.json"
    features = json.loads(file.read_text())
    del features["featuresDict"]["features"]["mask"]
    file.write_text(json.dumps(features))
    config.data_root = str(tmp_path)
    found, unreadable, _ = sections(config)
    errors = [(f.text, f.details) for f in found.findings if f.where == "streams.masks" and f.level == "error"]
    assert errors == [
        (
            "features missing in the prepared set: 1; the run does not start: prepare it anew",
            (f"{tmp_path}/toy/1.0.0: no feature 'mask', only id, image, tags",),
        )
    ]
    assert lines(unreadable, "streams.masks")[-1][1] == "all 8 photos: all can be read"


def test_tags_of_a_record_that_are_no_class_are_named(root):
    label_set = Vocabulary(tiny.NAMES, (), ()).label_set()
    photos = open_photo_set(SourceConfig("toy/1.0.0", "", "", "train"), root, label_set, "tags")
    photos = dataclasses.replace(photos, names=photos.names[:2])
    looks = [look_at(photos, i, View(np.arange(2, dtype=np.int32), "tags")) for i in range(photos.count)]
    (look,) = [look for look in looks if look.id == "p1"]
    assert look.classes == (0,)
    directory = f"{root}/toy/1.0.0"
    assert [(fault.kind, fault.what) for fault in look.faults] == [
        ("tag", f"{directory}, split 'train', photo 'p1': image label 2 is not among the classes 0..1 of {directory}")
    ]


def test_a_missing_set_says_how_to_prepare_it(config, tmp_path):
    config.data_root = str(tmp_path)
    config.streams.masks.source.tfds = "ade20k_150/1.0.0"
    (tmp_path / "coco_stuff_171" / "1.0.0.preparing").mkdir(parents=True)
    config.evals.val.source.tfds = "coco_stuff_171/1.0.0"
    found, _, _ = sections(config)
    command = f"python -m data_pipelines.prepare ade20k_150 --from=DIR --data_root={tmp_path}"
    (level, text, _) = lines(found, "streams.masks")[0]
    assert level == "error"
    assert f"{tmp_path}/ade20k_150/1.0.0 is not there: {command}" in text
    assert (
        "its preparation was interrupted: python -m data_pipelines.prepare coco_stuff_171"
        in lines(found, "evals.val")[0][1]
    )
    assert "toy/1.0.0 is no prepared TFDS data set" in lines(found, "streams.tags")[0][1]


def test_the_release_of_imagenet_and_its_missing_synsets(root):
    label_set = Vocabulary(tiny.NAMES, (), ()).label_set()
    photos = open_photo_set(SourceConfig("toy/1.0.0", "", "", "train"), root, label_set, "tags")
    key = "imagenet21k_subset_124"
    lost = class_list(key).ids[3]
    missing = dict(release="partial", closest_release="winter-2021", missing_synsets=[lost])

    def lines_of(**metadata):
        report = set_report.SetReport(
            where="streams.imagenet",
            source=SourceConfig(f"{key}/1.0.0", "", "", "train"),
            label_set=label_set,
            photos=dataclasses.replace(photos, names=class_list(key).ids, metadata=metadata),
        )
        section = classes.imagenet_section((report,))
        return [(f.level, f.text, f.details) for f in section.findings]

    assert lines_of(**missing) == [
        (
            "warning",
            f"release partial, closest to winter-2021; without photos for 1 of the 124 synsets of {key}",
            (f"{lost} {class_list(key).titles[3]}",),
        )
    ]
    assert lines_of(release="fall-2011", missing_synsets=[]) == [("ok", "release fall-2011, with all 124 synsets", ())]
    assert lines_of()[0][0] == "note"
