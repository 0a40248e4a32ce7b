"""Connected regions of label maps: against a flood fill, a decoder of COCO's runs, and polygons counted."""

import numpy as np
import pytest

from larvseg_jax.predict.regions import joined, regions, runs_of


def flooded(labels):
    """Sets of (row, column) of every region, by a flood fill pixel by pixel."""
    left = {(y, x) for y in range(labels.shape[0]) for x in range(labels.shape[1])}
    found = []
    while left:
        waiting = [left.pop()]
        region = set(waiting)
        while waiting:
            y, x = waiting.pop()
            for place in ((y + 1, x), (y - 1, x), (y, x + 1), (y, x - 1)):
                if place in left and labels[place] == labels[y, x]:
                    left.remove(place)
                    region.add(place)
                    waiting.append(place)
        found.append(frozenset(region))
    return set(found)


def decoded(counts, size):
    """The mask of COCO's uncompressed run lengths: columns one below the other, 0 first."""
    pixels = []
    for i, count in enumerate(counts):
        pixels += [i % 2] * count
    assert len(pixels) <= size[0] * size[1]
    pixels += [0] * (size[0] * size[1] - len(pixels))
    return np.array(pixels).reshape(size[1], size[0]).T


def inside(polygons, size):
    """Pixels whose centre lies inside an odd number of the rings."""
    mask = np.zeros(size, int)
    for ring in polygons:
        for (x0, y0), (x1, y1) in zip(ring, ring[1:] + ring[:1], strict=True):
            assert x0 == x1 or y0 == y1  # along borders of pixels only
            for y in range(min(y0, y1), max(y0, y1)):
                mask[y, x0:] ^= 1
    return mask


MAPS = {
    "noise": np.random.default_rng(0).integers(0, 3, (13, 17)),
    "islands": np.kron(np.random.default_rng(1).integers(0, 2, (6, 5)), np.ones((3, 2), int)),
    "one": np.full((4, 6), 7),
    "ring": np.pad(np.zeros((3, 3), int), 2, constant_values=1),
    "corners": np.eye(6, dtype=int),
    "row": np.array([[0, 0, 1, 0]]),
    "column": np.array([[0], [1], [1]]),
}


@pytest.mark.parametrize("name", MAPS)
def test_regions_are_those_of_a_flood_fill(name):
    labels = MAPS[name].astype(np.uint16)
    scores = np.random.default_rng(2).standard_normal(labels.shape).astype(np.float32)
    cut = len(labels) // 2
    parts = [(labels[:cut], scores[:cut], 0), (labels[cut:], scores[cut:], cut)]
    found = regions(joined([runs_of(*part) for part in parts if len(part[0])]), labels.shape)
    masks = []
    for region in found:
        left, top, width, height = region.box
        mask = np.zeros(labels.shape, int)
        mask[top : top + height, left : left + width] = region.mask
        masks.append(mask)
        there = mask == 1
        assert mask[top : top + height, left : left + width].any(0).all()  # the box is tight
        assert mask[top : top + height, left : left + width].any(1).all()
        assert (labels[there] == region.label).all()
        assert region.pixels == there.sum()
        assert region.score == pytest.approx(scores[there].mean(), abs=1e-6)
        np.testing.assert_array_equal(decoded(region.counts, labels.shape), mask)
        assert region.counts[-1] > 0
        np.testing.assert_array_equal(inside(region.polygons, labels.shape), mask)
    assert {frozenset(zip(*map(list, np.nonzero(mask)), strict=True)) for mask in masks} == flooded(labels)
    assert [region.pixels for region in found] == sorted((region.pixels for region in found), reverse=True)


def test_a_hole_is_a_ring_of_its_own():
    (outer,) = [r for r in regions(runs_of(MAPS["ring"], np.zeros((7, 7), np.float32)), (7, 7)) if r.label == 1]
    assert [sorted(ring) for ring in outer.polygons] == [
        [(0, 0), (0, 7), (7, 0), (7, 7)],
        [(2, 2), (2, 5), (5, 2), (5, 5)],
    ]


def test_pycocotools_reads_the_runs():
    coco = pytest.importorskip("pycocotools.mask", reason="pycocotools is not installed (pip install -e .[coco])")
    labels = MAPS["islands"]
    for region in regions(runs_of(labels, np.zeros(labels.shape, np.float32)), labels.shape):
        read = coco.decode(coco.frPyObjects({"size": list(labels.shape), "counts": region.counts}, *labels.shape))
        np.testing.assert_array_equal(read, decoded(region.counts, labels.shape))
