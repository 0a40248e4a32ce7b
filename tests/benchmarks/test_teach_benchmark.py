"""The measurement of taught classes: its scores against loops, and what it draws."""

import numpy as np
import pytest

from benchmarks.teach import Shown, lessons, mean_and_error, one_of, score
from larvseg_jax.teach.patches import PhotoPatches

ROWS = np.array([[1, 0], [0.75, 0.25], [0.25, 0.75], [0, 1]], np.float32)


def test_scores_against_loops_over_pixels():
    rng = np.random.default_rng(0)
    vectors = rng.normal(size=(4, 6)).astype(np.float32)
    vectors[3] = -10 * vectors.sum(0)  # as good as never the best, and nowhere labelled
    photos = []
    for _ in range(3):
        features = rng.normal(size=(2, 2, 6)).astype(np.float32)
        label = rng.integers(-1, 3, (4, 4)).astype(np.int32)
        photos.append(Shown(PhotoPatches(features, ROWS, ROWS), label))
    pixels = []
    for photo in photos:
        scores = photo.patches.features @ vectors.T
        for p in range(2):
            for q in range(2):
                scores[p, q] = (scores[p, q] - scores[p, q].mean()) / scores[p, q].std()
        for y in range(4):
            for x in range(4):
                at = sum(ROWS[y, p] * ROWS[x, q] * scores[p, q] for p in range(2) for q in range(2))
                if photo.label[y, x] >= 0:
                    pixels.append((photo.label[y, x], int(np.argmax(at))))
    found = score(photos, vectors, 5)
    assert np.isnan(found[4])
    for name in range(4):
        either = sum(name in pair for pair in pixels)
        expected = sum(t == p == name for t, p in pixels) / either if either else np.nan
        assert found[name] == pytest.approx(expected, nan_ok=True)


def test_classes_without_a_vector_do_not_compete():
    features = np.eye(2, dtype=np.float32)[None]  # one patch of each of two directions
    photo = Shown(
        PhotoPatches(features, np.ones((1, 1), np.float32), np.eye(2, dtype=np.float32)), np.array([[0, 2]], np.int32)
    )
    assert score([photo], np.eye(2, dtype=np.float32), 3).tolist() == [1.0, 0.0, 0.0]


def test_lessons_show_the_class_and_differ_by_draw():
    labels = [np.zeros((10, 10), int) for _ in range(40)]
    for number in range(0, 40, 2):
        labels[number][0, :2] = 1  # 2 %
    labels[1][0, 0] = 1  # too little
    source = [{"label": label} for label in labels]
    first, second = (list(lessons(source, 1, 5, np.random.default_rng(seed))) for seed in (0, 1))
    assert len(set(first)) == 5
    assert first != second
    assert all(number % 2 == 0 for number in first + second)
    assert len(list(lessons(source, 1, 99, np.random.default_rng(0)))) == 20


def test_a_click_is_one_pixel_of_the_mask():
    mask = np.zeros((5, 6), bool)
    mask[2:4, 1:5] = True
    clicks = [one_of(mask, np.random.default_rng(seed)) for seed in range(9)]
    assert all(click.sum() == 1 and mask[click].all() for click in clicks)
    assert len({click.tobytes() for click in clicks}) > 1


def test_means_have_standard_errors():
    assert mean_and_error(np.array([1.0, 2.0, 3.0])) == "2.0 ± 0.6"
    assert mean_and_error(np.array([4.0])) == "4.0"
