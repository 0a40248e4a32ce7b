"""Overlays: names in large segments, one colour for a class in every photo, the foreground alone in colour."""

import numpy as np
import pytest

from larvseg_jax.predict import drawing
from larvseg_jax.predict.predictor import Prediction
from larvseg_jax.predict.segmentation import Segmentation

NAMES = ("sky", "tree", "lawn")
PHOTO = np.full((120, 200, 3), (90, 120, 60), np.uint8)
GREY = round(0.299 * 90 + 0.587 * 120 + 0.114 * 60)


def found(labels):
    labels = np.asarray(labels, np.int32)[..., None]
    return Segmentation.of([Prediction(NAMES, labels, np.zeros(labels.shape, np.float32), None)], labels.shape[:2])


@pytest.fixture
def halves():
    """Two thirds sky above, a third lawn below, and a tree of 6 x 6 pixels in the sky."""
    labels = np.full((120, 200), 0)
    labels[80:] = 2
    labels[4:10, 190:196] = 1
    return labels


def test_large_segments_are_named_where_they_are(halves, monkeypatch):
    written = {}
    draw = drawing.draw_text
    monkeypatch.setattr(
        drawing,
        "draw_text",
        lambda d, place, text, *rest: (written.setdefault(text, place), draw(d, place, text, *rest)),
    )
    page = np.asarray(drawing.overlay_page(PHOTO, found(halves)))
    named = {text: place for text, place in written.items() if "%" not in text}
    assert set(named) == {"sky", "lawn"}  # the tree is too small
    for text, label in (("sky", 0), ("lawn", 2)):
        x, y = named[text]
        assert halves[y, x] == halves[y + 14, x + 24] == label
        assert (page[y : y + 14, x : x + 20] == 0).all(-1).any()  # black on white
    assert not (page[:, :200] == 0).all(-1)[20:30].any()


def test_a_class_has_its_colour_whatever_its_share(halves):
    first, second = found(halves), found(2 - halves)
    both = [np.asarray(drawing.coloured(part)) for part in (first, second)]
    for label in range(3):
        (one,), (other,) = (
            np.unique(p[part.labels == label], axis=0) for p, part in zip(both, (first, second), strict=True)
        )
        np.testing.assert_array_equal(one, other)
    assert len(np.unique(both[0].reshape(-1, 3), axis=0)) == 3


def test_what_is_shown_is_in_colour_and_the_rest_grey(halves):
    whole = np.asarray(drawing.overlay_page(PHOTO, found(halves))).astype(int)
    page = np.asarray(drawing.overlay_page(PHOTO, found(halves), {"tree", "lawn"})).astype(int)
    inside = (slice(5, 8), slice(191, 194))
    np.testing.assert_array_equal(page[inside], whole[inside])
    sky = page[2, 2]
    np.testing.assert_allclose(sky, GREY + 0.6 * (128 - GREY), atol=1)
    flat = np.asarray(drawing.coloured(found(halves), {"tree", "lawn"}))
    assert flat[2, 2].tolist() == [128, 128, 128]
    np.testing.assert_array_equal(flat[halves != 0], np.asarray(drawing.coloured(found(halves)))[halves != 0])
    nothing = np.asarray(drawing.overlay_page(PHOTO, found(halves), set()))
    assert np.ptp(nothing[:120, :200].astype(int), axis=-1).max() == 0
