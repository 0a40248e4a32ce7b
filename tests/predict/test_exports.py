"""What other tools are given: Label Studio's brush, COCO, polygons; read by decoders of our own."""

import json

import numpy as np
import pytest

from larvseg_jax.predict import exports
from larvseg_jax.predict.predictor import Prediction
from larvseg_jax.predict.segmentation import Segmentation
from tests.predict.test_regions import decoded, inside

NAMES, GROUPS = ("sky", "dog", "sofa", "none"), ("base", "novel", "base", "")


@pytest.fixture(scope="module")
def labels():
    coarse = np.random.default_rng(3).integers(0, 3, (5, 7))
    return np.kron(coarse, np.ones((4, 30), int)).astype(np.int32)


@pytest.fixture(scope="module")
def found(labels):
    scores = np.random.default_rng(4).standard_normal(labels.shape).astype(np.float32)
    cut = [Prediction(NAMES, part[..., None], s[..., None], None)
           for part, s in zip(np.split(labels, [6]), np.split(scores, [6]), strict=True)]  # fmt: skip
    return Segmentation.of(cut, labels.shape, GROUPS)


def brush_decoded(data):
    """The values of the library rle-pack, bit by bit as its decoder has it."""
    bits = [byte >> k & 1 for byte in data for k in range(7, -1, -1)]
    at = 0

    def read(count):
        nonlocal at
        value = 0
        for bit in bits[at : at + count]:
            value = 2 * value + bit
        at += count
        return value

    count, word = read(32), read(5) + 1
    sizes = [read(4) + 1 for _ in range(4)]
    values = []
    while len(values) < count:
        repeated = read(1)
        number = read(sizes[read(2)]) + 1
        values += [read(word)] * number if repeated else [read(word) for _ in range(number)]
    assert len(values) == count
    assert len(bits) - at < 8
    return np.array(values)


def test_label_studio_reads_the_brush_of_every_class(found, labels):
    (task,) = json.loads(json.dumps(exports.label_studio(found, "a.jpg")))
    assert task["data"] == {"image": "a.jpg"}
    (prediction,) = task["predictions"]
    seen = set()
    for result in prediction["result"]:
        assert (result["type"], result["from_name"], result["to_name"]) == ("brushlabels", "tag", "image")
        assert (result["original_height"], result["original_width"]) == labels.shape
        (name,) = result["value"]["brushlabels"]
        rgba = brush_decoded(result["value"]["rle"]).reshape(*labels.shape, 4)
        np.testing.assert_array_equal(rgba, np.repeat(255 * (labels == NAMES.index(name))[..., None], 4, 2))
        seen.add(name)
    assert seen == {"sky", "dog", "sofa"}


@pytest.mark.parametrize("length", [1, 2, 3, 64, 65, 16_384, 16_385, 40_000])
def test_runs_of_every_length_are_written(length):
    mask = np.r_[np.zeros(3, int), np.ones(length, int), np.zeros(length % 7, int)]
    data = exports.brush_runs(np.array([3]), np.array([3 + length]), len(mask))
    np.testing.assert_array_equal(brush_decoded(data), np.repeat(255 * mask, 4))


def test_coco_has_every_segment(found, labels):
    data = json.loads(json.dumps(exports.coco(found, "a.jpg")))
    assert data["images"] == [{"id": 1, "file_name": "a.jpg", "width": 210, "height": 20}]
    names = {c["id"]: (c["name"], c["supercategory"]) for c in data["categories"]}
    assert names == {1: ("sky", "base"), 2: ("dog", "novel"), 3: ("sofa", "base")}
    left = np.full(labels.shape, -1)
    for annotation in data["annotations"]:
        assert annotation["segmentation"]["size"] == list(labels.shape)
        mask = decoded(annotation["segmentation"]["counts"], labels.shape) == 1
        assert (left[mask] == -1).all()
        left[mask] = annotation["category_id"] - 1
        rows, columns = np.nonzero(mask)
        box = [columns.min(), rows.min(), np.ptp(columns) + 1, np.ptp(rows) + 1]
        assert (annotation["bbox"], annotation["area"]) == (box, mask.sum())
    np.testing.assert_array_equal(left, labels)


def test_polygons_cover_what_they_say(found, labels):
    data = json.loads(json.dumps(exports.polygons(found, "a.jpg")))
    left = np.full(labels.shape, -1)
    for feature in data["features"]:
        rings = feature["geometry"]["coordinates"]
        assert all(ring[0] == ring[-1] for ring in rings)
        mask = inside([[tuple(point) for point in ring[:-1]] for ring in rings], labels.shape) == 1
        left[mask] = NAMES.index(feature["properties"]["class"])
        assert feature["properties"]["pixels"] == mask.sum()
        assert feature["properties"]["group"] == GROUPS[NAMES.index(feature["properties"]["class"])]
    np.testing.assert_array_equal(left, labels)
