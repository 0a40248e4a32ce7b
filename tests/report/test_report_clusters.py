"""Clusters painted over a photo: colours of their classes, lines between them, and their names."""

from unittest import mock

import numpy as np
import pytest

from larvseg_jax.evaluation.metrics import Summary
from larvseg_jax.report import cards, clusters
from larvseg_jax.report.clusters import PhotoClusters, paint_clusters

NAMES = ("cat", "grass", "<dog>")
PALETTE = np.array([[250, 0, 0], [0, 250, 0], [0, 0, 250]], np.uint8)
GREY = np.full((90, 270, 3), 100, np.uint8)
# Cluster 0 on the left, 3 in the middle, 1 on the right; 2 is empty. Clusters 3 and 1 are of one class.
THREE = PhotoClusters(np.repeat([[0, 3, 1]], 2, 0).astype(np.int32), np.array([2, 1, -1, 1], np.int32))


@pytest.fixture
def written(monkeypatch):
    """The texts drawn and the middles of their places, instead of drawing them."""
    found = {}

    def note(draw, place, text, width, size=14):
        found[text] = (place[0] + width / 2, place[1])

    monkeypatch.setattr(clusters, "draw_text", note)
    return found


def test_each_cluster_has_the_colour_of_its_class(written):
    picture = paint_clusters(GREY, THREE, NAMES, PALETTE)
    mixed = (100 + 0.6 * (PALETTE.astype(float) - 100)).round().astype(np.uint8)
    for column, name in ((20, 2), (100, 1), (250, 1)):
        assert (picture[5, column] == mixed[name]).all()
    assert (picture[:, 89] == 255).all()  # lines between clusters,
    assert (picture[:, 179] == 255).all()  # of one class, too


def test_each_cluster_is_named_in_its_middle(written):
    paint_clusters(GREY, THREE, NAMES, PALETTE)
    assert set(written) == {"0 <dog>", "3 grass", "1 grass"}
    for text, column in (("0 <dog>", 45), ("3 grass", 135), ("1 grass", 225)):
        assert abs(written[text][0] - column) <= 3
        assert 30 <= written[text][1] <= 50


def test_a_cluster_in_pieces_is_named_on_its_largest(written):
    grid = np.zeros((9, 18), np.int32)
    grid[0, 0], grid[3:7, 10:16] = 1, 1
    paint_clusters(GREY, PhotoClusters(grid, np.array([0, 1], np.int32)), NAMES, PALETTE)
    column, row = written["1 grass"]
    assert 150 < column < 240
    assert 30 <= row + 7 <= 70


def test_a_name_that_no_font_has_leaves_the_number(written):
    paint_clusters(GREY, THREE._replace(classes=np.zeros(4, np.int32)), ("\U000f0000",), PALETTE)
    assert set(written) == {"0", "1", "3"}


def test_names_stay_inside_of_a_small_picture():
    picture = paint_clusters(GREY[:16, :20], THREE, ("a name that is far too long",) * 3, PALETTE)
    assert picture.shape == (16, 20, 3)


def test_a_card_shows_them_where_there_are_any(written, monkeypatch):
    monkeypatch.setattr(cards, "jpeg_url", lambda pixels: "")
    summary = mock.Mock(spec=Summary, names=NAMES, groups=("base", "base", "novel"))
    label = np.zeros((90, 270), np.int32)
    for item, shown in (
        (cards.GalleryItem("a", GREY, label), []),
        (cards.GalleryItem("a", GREY, label, clusters=THREE), ["clusters and their names"]),
    ):
        captions = [picture["caption"] for picture in cards.photo_card(item, summary, PALETTE)["pictures"]]
        assert captions == ["photo", "prediction", *shown]
