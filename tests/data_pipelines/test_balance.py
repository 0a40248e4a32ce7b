"""Photos of rare classes come more often: the factors by hand, the order of an epoch, resuming at any step."""

import collections
import json

import numpy as np
import pytest
from PIL import Image

from data_pipelines.balance import balanced_order, repeat_factors, settled
from data_pipelines.sources import SourceConfig, open_source
from data_pipelines.streams import StreamConfig, open_stream, recorded, step_batches
from data_pipelines.views import MaskView, TagView
from larvseg_jax.errors import DataError, UserError
from larvseg_jax.vocabulary import Vocabulary

WORDS = Vocabulary(("road", "car", "hydrant", "nothing"), base=("road",), novel=("car", "hydrant"))
SHOWN = [(0,)] * 12 + [(0, 1)] * 7 + [(0, 2)]  # car in 7 of 20 photos, hydrant in one


class Photos:
    """Labels of SHOWN; one photo is broken."""

    def __init__(self, broken=None):
        self.broken = broken

    def __len__(self):
        return len(SHOWN)

    def __getitem__(self, index):
        if index == self.broken:
            raise DataError("unreadable", "p.jpg: broken", "mend it")
        label = np.full((4, 4), -1, np.int32)
        label[0, : len(SHOWN[index])] = SHOWN[index]
        return {"id": str(index), "image": np.zeros((4, 4, 3), np.uint8), "label": label}


def test_factors_are_those_of_the_paper():
    np.testing.assert_allclose(repeat_factors(np.array([1.0, 0.35, 0.05, 0.0]), 0.2), [1, 1, 2, 1])


def test_fractions_are_settled_evenly():
    whole = settled(np.full(1000, 1.3))
    assert set(whole.tolist()) == {1, 2}
    assert whole.mean() == pytest.approx(1.3, abs=0.002)
    assert abs(whole[:100].mean() - whole[-100:].mean()) < 0.02
    np.testing.assert_array_equal(settled(np.array([1.0, 2.0, 3.0])), [1, 2, 3])


def test_an_epoch_repeats_photos_of_rare_classes():
    label_set = WORDS.label_set()
    times = collections.Counter(balanced_order(Photos(), label_set, 0.2, "x").tolist())
    assert times == dict.fromkeys(range(19), 1) | {19: 2}
    times = collections.Counter(balanced_order(Photos(broken=19), label_set, 0.2, "x").tolist())
    assert times == dict.fromkeys(range(20), 1)
    often = balanced_order(Photos(), label_set, 1.0, "x")
    share = np.mean([photo == 19 for photo in often])
    assert share == pytest.approx(np.sqrt(20) / (12 + 7 * np.sqrt(20 / 7) + np.sqrt(20)), abs=0.03)


@pytest.fixture
def folder(tmp_path):
    (tmp_path / "tagged").mkdir()
    lines = ["file,tags"]
    for i, columns in enumerate(SHOWN):
        Image.fromarray(np.full((8, 8, 3), i, np.uint8)).save(tmp_path / "tagged" / f"{i:02d}.png")
        lines.append(f"{i:02d}.png,{';'.join(WORDS.classes[c] for c in columns)}")
    (tmp_path / "tagged" / "tags.csv").write_text("\n".join(lines))
    return tmp_path


def stream_of(folder, **changes):
    view = TagView(tags_from="image", max_labels=2, crop_size=8, scale=(8, 8), ratio_range=(1.0, 1.0))
    config = StreamConfig(view, None, SourceConfig(tagged="tagged"), batch_size=5, **changes)
    return open_stream(config, folder, WORDS.label_set())


def test_batches_hold_them_as_often_and_resume_at_any_step(folder):
    batches = step_batches({"tags": stream_of(folder, rare_below=1.0)}, seed=3, total_steps=400)
    drawn = collections.Counter(photo for i in range(400) for photo in batches[i]["tags"]["id"])
    expected = np.sqrt(20) / (12 + 7 * np.sqrt(20 / 7) + np.sqrt(20))
    assert drawn["19.png"] / 2000 == pytest.approx(expected, abs=0.03)
    again = step_batches({"tags": stream_of(folder, rare_below=1.0)}, seed=3, total_steps=400)
    for step in (0, 7, 211):
        for name, values in again[step]["tags"].items():
            np.testing.assert_array_equal(values, batches[step]["tags"][name])
    parts = [
        step_batches(
            {"tags": stream_of(folder, rare_below=1.0)}, seed=3, total_steps=9, process_index=i, process_count=5
        )
        for i in range(5)
    ]
    assert [photo for part in parts for photo in part[6]["tags"]["id"]] == batches[6]["tags"]["id"].tolist()


def test_without_it_the_order_is_as_ever(folder):
    plain = step_batches({"tags": stream_of(folder)}, seed=3, total_steps=8)
    assert stream_of(folder).order is None
    seen = [photo for i in range(4) for photo in plain[i]["tags"]["id"]]
    assert sorted(seen) == [f"{i:02d}.png" for i in range(20)]


def test_classes_are_known_without_opening_a_picture(folder):
    for path in (folder / "tagged").glob("*.png"):
        path.write_bytes(b"not read")
    assert collections.Counter(stream_of(folder, rare_below=0.2).order.tolist())[19] == 2
    for name, count in (("car", 9), ("hydrant", 1)):
        (folder / "classes" / name).mkdir(parents=True)
        for i in range(count):
            (folder / "classes" / name / f"{i}.png").write_bytes(b"not read")
    source = open_source(SourceConfig(class_folders="classes"), folder, WORDS.label_set(), "tags")
    assert [source.columns(i).tolist() for i in (0, 8, 9)] == [[1], [1], [2]]
    order = balanced_order(source, WORDS.label_set(), 0.4, "x")
    assert collections.Counter(order.tolist()) == dict.fromkeys(range(9), 1) | {9: 2}


@pytest.mark.parametrize("share", [-0.1, 1.5, float("nan")])
def test_a_share_is_none(share):
    with pytest.raises(UserError, match="give a share of the photos, 0 to 1"):
        StreamConfig(MaskView(), None, rare_below=share)


def test_records_do_not_tell_of_what_is_not_in_use():
    """A run of earlier code goes on, and its features are read."""
    source = {"tfds": "", "folder": "x", "class_folders": "", "split": "train"}
    before = {"source": source, "batch_size": 8}
    now = {"source": {**source, "tagged": ""}, "batch_size": 8, "rare_below": 0.0}
    assert recorded(now) == before == recorded(json.loads(json.dumps(now)))
    used = {"source": {**source, "tagged": "t"}, "batch_size": 8, "rare_below": 0.1}
    assert recorded(used) == used
