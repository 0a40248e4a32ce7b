"""The HTML of a picture: outlines that lie on the segments, names that are text, figures in the table."""

import base64
import html.parser
import io
import re

import cv2
import numpy as np
import pytest
from PIL import Image

from larvseg_jax.page.view import lesson, table, viewer
from larvseg_jax.predict.predictor import Prediction
from larvseg_jax.predict.segmentation import Segmentation
from larvseg_jax.predict.segmenter import Result
from larvseg_jax.report.colours import class_colours

NAMES = ("sky", 'a "cat" & <b>', "dog")
GROUPS = ("background", "base", "novel")


def result_of(labels, names=NAMES, groups=GROUPS):
    scores = np.where(labels == 1, 2.0, 0.5).astype(np.float32)[..., None]
    strip = Prediction(names, labels[..., None].astype(np.int32), scores, None)
    found = Segmentation.of([strip], labels.shape, groups)
    parts = {name: getattr(found, name) for name in ("names", "groups", "labels", "runs", "pixels", "mean_scores")}
    return Result(**parts, mean_probabilities=None, image=np.full((*labels.shape, 3), 100, np.uint8))


@pytest.fixture(scope="module")
def labels():
    """On sky a cat, a disc with a hole in which a dog sits; 1500 x 1200 pixels, more than are shown."""
    y, x = np.mgrid[:1200, :1500]
    far = np.hypot(y - 600, x - 700)
    return np.select([far < 100, far < 400], [2, 1], 0)


class Tags(html.parser.HTMLParser):
    """All tags with their attributes, and all text."""

    def __init__(self, text):
        super().__init__()
        self.tags, self.text = [], []
        self.feed(text)

    def handle_starttag(self, tag, attrs):
        self.tags.append((tag, dict(attrs)))

    def handle_data(self, data):
        self.text.append(data)

    def all(self, tag):
        return [attributes for name, attributes in self.tags if name == tag]


def test_outlines_lie_on_the_segments_and_say_what_they_are(labels):
    page = Tags(viewer("", result_of(labels), "a/b.png", [(3.0, 4.5)]))
    for path in page.all("path"):
        rings = [np.array(re.findall(r"(-?\d+),(-?\d+)", ring), int) for ring in path["d"].split("M")[1:]]
        inside = cv2.fillPoly(np.zeros(labels.shape, np.uint8), rings, 1)  # OpenCV fills by the even-odd rule
        assert ((inside > 0) == (labels == NAMES.index(path["data-name"]))).mean() > 0.995
    said = {path["data-name"]: (path["data-group"], path["data-score"]) for path in page.all("path")}
    assert said == {"sky": ("background", "0.50"), NAMES[1]: ("base", "2.00"), "dog": ("novel", "0.50")}
    assert page.all("svg")[0]["viewbox"] == "0 0 1500 1200"
    assert [(mark["cx"], mark["cy"]) for mark in page.all("circle")] == [("3", "4.5")]
    assert {tag for tag, _ in page.tags} == {"figure", "div", "img", "svg", "g", "path", "circle"}
    assert page.all("figure")[0]["data-photo"] == "a/b.png"


def test_the_picture_is_coloured_but_for_the_background(labels):
    (image,) = Tags(viewer("m", result_of(labels), "", [])).all("img")
    shown = np.asarray(Image.open(io.BytesIO(base64.b64decode(image["src"].partition(",")[2])))).astype(float)
    assert shown.shape == (819, 1024, 3)
    mixed = 0.6 * class_colours(NAMES) + 0.4 * 100
    for (y, x), colour in {(100, 100): (100,) * 3, (600, 450): mixed[1], (600, 700): mixed[2]}.items():
        np.testing.assert_allclose(shown[round(y * 1024 / 1500), round(x * 1024 / 1500)], colour, atol=8)


def test_the_table_has_the_segments_and_their_shares(labels):
    page = Tags(table("m", result_of(labels)))
    cells = [text for text in page.text if text.strip()]
    assert cells[:5] == ["m", "segment", "group", "share", "mean score"]
    disc, hole = np.pi * 400**2 / 1.8e6, np.pi * 100**2 / 1.8e6
    rows = {cells[i]: cells[i + 1 : i + 4] for i in range(5, len(cells), 4)}
    assert rows["dog"] == ["novel", f"{100 * hole:.1f} %", "0.50"]
    assert rows[NAMES[1]] == ["base", f"{100 * (disc - hole):.1f} %", "2.00"]
    assert "b" not in {tag for tag, _ in page.tags}
    background = table("", result_of(labels, ("background", *NAMES[1:])))
    assert background.count("background") == 1 + background.count("background:rgb")  # as a name, not as a group
    assert "group" not in table("", result_of(labels, groups=("", "", "")))


def test_of_very_many_segments_the_small_ones_are_counted_and_not_drawn():
    labels = np.zeros((300, 300), int)
    labels[::10, ::10] = 1  # 900 single pixels
    page = Tags(viewer("", result_of(labels), "", []))
    assert len(page.all("path")) == 1
    assert "< 0.1 %" in Tags(table("", result_of(labels))).text
    assert Tags(table("", result_of(labels))).text[-1] == "and 876 smaller ones, 1.0 % together"


def test_nothing_is_shown_before_there_is_a_picture():
    assert "Drop a picture" in viewer("m", None, "", [])
    assert table("m", None) == ""
    assert "2 clicks in 1 picture<" in lesson(2, 1)
