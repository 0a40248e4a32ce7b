"""The view of CEL: masks of seen classes, and tags of all."""

import json

import numpy as np
import pytest
from PIL import Image

from data_pipelines.listed_tags import with_listed_tags
from data_pipelines.mask_tag_views import MaskTagView
from data_pipelines.sources import SourceConfig
from data_pipelines.streams import StreamConfig, open_stream, step_batches
from larvseg_jax.errors import DataError, UserError
from larvseg_jax.vocabulary import IGNORE_LABEL, Vocabulary

NAMES = ("sky", "sheep", "grass", "cow")
OPTIONS = dict(scale=(8, 8), ratio_range=(1.0, 1.0), crop_size=8, category_ratio=1.0, downsample_rate=1)


@pytest.fixture
def label_set():
    return Vocabulary(NAMES, base=NAMES).label_set()


def example(tags=None):
    label = np.repeat(np.array([[0, 1, 2, IGNORE_LABEL]], np.int32), 2, 1).repeat(8, 0)
    found = {"id": "a.jpg", "image": np.zeros((8, 8, 3), np.uint8), "label": label}
    return found if tags is None else {**found, "tags": np.array(tags, np.int32)}


def row(label_set, seed=0, tags=None, **changes):
    view = MaskTagView(**OPTIONS, **changes)
    view.check(label_set)
    found = view.row(example(tags), np.random.default_rng(seed), label_set)
    assert set(view.spec()) == set(found)
    return found


def test_masks_of_unmasked_classes_are_no_labels(label_set):
    assert set(np.unique(row(label_set)["label"])) == {-1, 0, 1, 2}
    assert set(np.unique(row(label_set, unmasked=("sheep", "cow"))["label"])) == {-1, 0, 2}


@pytest.mark.parametrize(
    ("tags_from", "expected"), [("masked", [0, 2, -1, -1]), ("crop", [0, 1, 2, -1]), ("photo", [0, 2, 3, -1])]
)
def test_tags(label_set, tags_from, expected):
    found = row(label_set, tags=[2, 3], unmasked=("sheep", "cow"), tags_from=tags_from, max_labels=4)
    assert found["tags"].tolist() == expected


def test_listed_tags_are_dropped_by_the_rows_own_random_numbers(label_set):
    options = dict(unmasked=("sheep", "cow"), tags_from="photo", drop=0.25, max_labels=4, tags=[1, 3])
    found = [row(label_set, seed, **options)["tags"].tolist() for seed in range(400)]
    kept = sum(1 in tags for tags in found), sum(3 in tags for tags in found)
    assert all(abs(n - 300) < 40 for n in kept)  # 4.6 standard deviations
    assert all({0, 2} <= {*tags} for tags in found)  # of masks none is
    assert found[7] == row(label_set, 7, **options)["tags"].tolist()


def test_too_many_tags_are_an_error(label_set):
    with pytest.raises(DataError, match=r"'a.jpg' has 3 tags and max_labels is 2: set .* at least 3"):
        row(label_set, max_labels=2)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        (dict(drop=1.0, tags_from="photo"), "drop is 1.0"),
        (dict(drop=0.25), "drop=0.25 leaves out own tags of photos"),
        (dict(unmasked=("shep",)), "unmasked has 'shep'"),
    ],
)
def test_wrong_options(label_set, changes, message):
    with pytest.raises(UserError, match=message):
        row(label_set, **changes)


@pytest.mark.parametrize("given", [dict(tags_from="photo"), dict(file="tags.json")])
def test_a_file_and_listed_tags_go_together(given):
    source = SourceConfig(folder="photos", tags_file=given.pop("file", ""))
    with pytest.raises(UserError, match="give all of these or none"):
        StreamConfig(MaskTagView(**OPTIONS, **given), None, source)


class Photos:
    def __len__(self):
        return 2

    def __getitem__(self, index):
        return {**example(), "id": ("a.jpg", "b.jpg")[index]}


def test_a_list_gives_photos_their_tags(tmp_path, label_set):
    file = tmp_path / "tags.json"
    file.write_text(json.dumps({"a.jpg": ["cow", "horse", "sky"]}))
    source = with_listed_tags(Photos(), file, label_set)
    assert [source[i]["tags"].tolist() for i in range(len(source))] == [[0, 3], []]


@pytest.mark.parametrize(
    ("listed", "message"),
    [
        (None, "there is no .*tags.json"),
        ({"a.jpg": ["horse"]}, r"none of its tags \(horse, ...\) is among the stream's 4 classes"),
        ({"c.jpg": ["cow"]}, "has none of the photos 'a.jpg', 'b.jpg'"),
    ],
)
def test_wrong_lists(tmp_path, label_set, listed, message):
    file = tmp_path / "tags.json"
    if listed is not None:
        file.write_text(json.dumps(listed))
    with pytest.raises(UserError, match=message):
        with_listed_tags(Photos(), file, label_set)


def test_a_stream_of_a_folder(tmp_path, label_set):
    for part in ("images", "masks"):
        (tmp_path / part / "train").mkdir(parents=True)
    for stem, ids in (("a", [0, 1]), ("b", [2, 1])):
        Image.new("RGB", (8, 8)).save(tmp_path / "images" / "train" / f"{stem}.png")
        mask = Image.fromarray(np.repeat([ids], 8, 0).repeat(4, 1).astype(np.uint8))
        mask.save(tmp_path / "masks" / "train" / f"{stem}.png")
    (tmp_path / "classes.txt").write_text("\n".join(NAMES))
    (tmp_path / "pseudo.json").write_text(json.dumps({"a": ["cow"], "b": ["sheep", "cow"]}))
    view = MaskTagView(**OPTIONS, unmasked=("sheep", "cow"), tags_from="photo", max_labels=3)
    config = StreamConfig(view, None, SourceConfig(folder=".", tags_file="pseudo.json"), batch_size=2)
    batches = step_batches({"photos": open_stream(config, tmp_path, label_set)}, seed=0, total_steps=3)
    for i in range(3):
        batch = batches[i]["photos"]
        rows = dict(zip(batch["id"].tolist(), zip(batch["tags"].tolist(), batch["label"], strict=True), strict=True))
        assert rows["a"][0] == [0, 3, -1]
        assert rows["b"][0] == [1, 2, 3]
        assert {*rows["b"][1].ravel().tolist()} == {-1, 2}
