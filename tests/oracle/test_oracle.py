"""The oracle test against the plain way: features of every pixel in float64, one score map per class."""

import itertools

import numpy as np
import pytest

from data_pipelines import transforms
from larvseg_jax.errors import UserError
from larvseg_jax.oracle.cosines import Drawing, PixelFeatures, label_map
from larvseg_jax.oracle.counting import Pixels, count

GRIDS = [((3, 4), (11, 14)), ((1, 3), (5, 9)), ((2, 1), (9, 3)), ((4, 4), (3, 2)), ((3, 3), (3, 3))]
SIZES = [(20, 30), (45, 19), (18, 18), (12, 70)]
SCALE = (48, 16)
PATCH, CLASSES = 4, 5
ALL = Pixels("all", np.ones(CLASSES, bool))
NOVEL = Pixels("novel 2/3", np.array([False, True, False, True, True]))


def unit(vectors):
    return vectors / np.linalg.norm(vectors, axis=-1, keepdims=True)


def interpolated(maps, size):
    """Straight lines between pixel centres, along the first axis and then the second."""
    for axis, n_out in enumerate(size):
        n_in = maps.shape[axis]
        position = (np.arange(n_out) + 0.5) * n_in / n_out - 0.5
        maps = np.apply_along_axis(lambda x, p=position, n=n_in: np.interp(p, np.arange(n), x), axis, maps)
    return maps


def plain_scores(patches, label, competing, points, size):
    """Score maps of all classes at the photo's own size; `points(label, column)` are positions in the label."""
    features = unit(interpolated(patches.astype(np.float64), label.shape)).reshape(label.size, -1)
    scores = np.zeros((len(competing), *size))
    for column in np.unique(label[label >= 0]).tolist():
        if competing[column]:
            seeds = features[points(label, column)]
            scores[column] = interpolated((seeds @ features.T).max(0).reshape(label.shape), size)
    scores[~competing] = -np.inf
    return scores


def plain_counts(embed, photos, scale, drawing, competing, repeat):
    hit, union, truth = np.zeros((3, len(competing)))
    for i, photo in enumerate(photos):
        (height, width), label = photo["image"].shape[:2], photo["label"]
        factor = min(max(scale) / max(height, width), min(scale) / min(height, width))
        h, w = int(height * factor + 0.5), int(width * factor + 0.5)
        small = label[np.arange(h) * height // h][:, np.arange(w) * width // w]
        patches = embed(transforms.eval_transform(photo["image"], scale))
        scores = plain_scores(patches, small, competing, lambda x, c, i=i: drawing.pixels(x, c, repeat, i), label.shape)
        prediction = scores.argmax(0)
        for k in np.flatnonzero(competing):
            counted = np.isin(label, np.flatnonzero(competing))
            mine = counted & (prediction == k)
            hit[k] += (mine & (label == k)).sum()
            union[k] += (mine | (label == k)).sum()
            truth[k] += (label == k).sum()
    return hit, union, truth


def photos():
    """Random pixels; boxes of random classes, the last one in no photo; some pixels without label."""
    made = []
    for i, size in enumerate(SIZES):
        rng = np.random.default_rng(i)
        label = np.kron(rng.integers(-1, CLASSES - 1, (4, 4)), np.ones((18, 18), int))[: size[0], : size[1]]
        label = np.pad(label, [(0, n - have) for n, have in zip(size, label.shape, strict=True)], mode="wrap")
        image = rng.integers(0, 256, (*size, 3), dtype=np.uint8)
        made.append({"id": f"photo {i}", "image": image, "label": label.astype(np.int32)})
    return made


def embed_means(image):
    """Patch means, the last patches cut short, times a matrix."""
    weight = np.random.default_rng(9).normal(size=(3, 6))
    rows, columns = (np.arange(0, n, PATCH) for n in image.shape[:2])
    blocks = [[image[y : y + PATCH, x : x + PATCH].mean((0, 1)) for x in columns] for y in rows]
    return unit(np.array(blocks) @ weight).astype(np.float32)


def embed_colours(image):
    """The same with another matrix, of the absolute values."""
    weight = np.random.default_rng(10).normal(size=(6, 4))
    return unit(np.abs(embed_means(image)) @ weight).astype(np.float32)


@pytest.mark.parametrize(("grid", "size"), GRIDS)
def test_cosines_are_those_of_the_interpolated_features(grid, size):
    rng = np.random.default_rng(1)
    patches = unit(rng.normal(size=(*grid, 3))).astype(np.float32)
    vectors = unit(rng.normal(size=(4, 3))).astype(np.float32)
    expected = unit(interpolated(patches.astype(np.float64), size))
    features = PixelFeatures.of(patches, size)
    cosines = expected @ vectors.T
    np.testing.assert_allclose(features.greatest_cosine(vectors), cosines.max(-1), atol=2e-5)
    np.testing.assert_allclose(features.greatest_cosine(vectors[:1]), cosines[..., 0], atol=2e-5)
    pixels = rng.permutation(size[0] * size[1])[:5]
    np.testing.assert_allclose(features.at(pixels), expected.reshape(-1, 3)[pixels], atol=2e-5)


def test_neighbours_that_cancel_give_finite_scores():
    patches = np.array([[[1, 0], [-1, 0]]], np.float32)
    features = PixelFeatures.of(patches, (1, 3))
    assert np.isfinite(features.greatest_cosine(features.at(np.array([1])))).all()


def test_drawn_pixels_are_of_their_class():
    label = np.random.default_rng(0).integers(-1, 4, (9, 13)).astype(np.int32)
    label[2, 3:6] = 7
    for column in range(4):
        drawn = Drawing(points=5, seed=3).pixels(label, column, 0, 0)
        assert (label.ravel()[drawn] == column).all()
        assert len(set(drawn.tolist())) == 5
    assert sorted(Drawing(points=5).pixels(label, 7, 0, 0).tolist()) == [2 * 13 + x for x in (3, 4, 5)]


def test_every_seed_repeat_photo_and_class_draws_for_itself():
    label = np.zeros((100, 100), np.int32)
    label[50:] = 1
    first = Drawing(seed=0).pixels(label, 0, 0, 0)
    draws = [
        Drawing(seed=1).pixels(label, 0, 0, 0),
        Drawing(seed=0).pixels(label, 0, 1, 0),
        Drawing(seed=0).pixels(label, 0, 0, 1),
        Drawing(seed=0).pixels(label, 1, 0, 0) - 5000,
    ]
    assert len({first.item(), *(d.item() for d in draws)}) == 5
    without_the_other = np.where(label == 0, label, np.int32(-1))
    np.testing.assert_array_equal(Drawing(seed=0).pixels(without_the_other, 0, 0, 0), first)


def test_draws_are_spread_over_the_class():
    label = np.zeros((1, 4), np.int32)
    drawn = [Drawing().pixels(label, 0, repeat, 0).item() for repeat in range(400)]
    assert (np.bincount(drawn, minlength=4) > 60).all()  # 100 each, standard deviation 9


def test_classes_that_are_not_drawn_score_zero():
    """Left half like the drawn pixel, right half opposite to it: there every class that is absent wins."""
    patches = np.array([[[1, 0], [1, 0], [-1, 0], [-1, 0]]] * 2, np.float32)
    features = PixelFeatures.of(patches, (2, 4))
    drawn = {3: np.array([0])}
    np.testing.assert_array_equal(label_map(features, drawn, np.ones(5, bool), (2, 4)), [[3, 3, 0, 0]] * 2)
    np.testing.assert_array_equal(label_map(features, drawn, NOVEL.competing, (2, 4)), [[3, 3, 1, 1]] * 2)
    everything = {k: np.array([0]) for k in range(5)}
    np.testing.assert_array_equal(label_map(features, everything, np.ones(5, bool), (2, 4)), np.zeros((2, 4)))


def test_the_nearest_of_several_points_counts():
    patches = np.array([[[1, 0], [0, 1], [0.6, 0.8], [0.96, 0.28]]], np.float32)
    drawn = {0: np.array([0, 1]), 1: np.array([2])}
    prediction = label_map(PixelFeatures.of(patches, (1, 4)), drawn, np.ones(2, bool), (1, 4))
    np.testing.assert_array_equal(prediction, [[0, 0, 1, 0]])


@pytest.mark.parametrize("points", [1, 4])
def test_counts_equal_the_plain_way(points):
    drawing = Drawing(points, repeats=2, seed=5)
    embeds = embed_means, embed_colours
    counts = count(lambda image: [embed(image) for embed in embeds], 2, photos(), SCALE, drawing, [ALL, NOVEL])
    places = itertools.product(range(2), range(2), range(2))
    for kind, of_choice, repeat in places:
        choice, found = (ALL, NOVEL)[of_choice], counts[kind][of_choice][repeat]
        hit, union, truth = plain_counts(embeds[kind], photos(), SCALE, drawing, choice.competing, repeat)
        np.testing.assert_array_equal(found.labelled, truth)
        # A handful of pixels where two scores are equal up to rounding.
        np.testing.assert_allclose(found.intersection, hit, atol=5)
        np.testing.assert_allclose(found.predicted + found.labelled - found.intersection, union, atol=5)
    assert (counts[0][1][0].predicted[~NOVEL.competing] == 0).all()
    assert counts[0][0][0].intersection.tolist() != counts[0][0][1].intersection.tolist()
    assert counts[0][0][0].intersection.tolist() != counts[1][0][0].intersection.tolist()


def test_limit():
    counts = count(lambda image: [embed_means(image)], 1, photos(), SCALE, Drawing(repeats=1), [ALL], limit=2)
    assert counts[0][0][0].labelled.sum() == sum((p["label"] >= 0).sum() for p in photos()[:2])


def test_perfect_features_give_miou_1():
    """One-hot features of every pixel; the photos have the test scale, so nothing is resized."""
    perfect = []
    for i in range(3):
        label = np.random.default_rng(i).integers(-1, CLASSES, (16, 20)).astype(np.int32)
        perfect.append({"id": str(i), "image": np.repeat(label[..., None] + 1, 3, -1).astype(np.uint8), "label": label})

    def embed(image):
        value = np.rint(image[..., 0] * transforms.STD[0] + transforms.MEAN[0]).astype(int)
        return [np.eye(CLASSES + 1, dtype=np.float32)[value]]

    (counts,) = count(embed, 1, perfect, SCALE, Drawing(), [ALL, NOVEL])
    for choice, of_repeats in zip((ALL, NOVEL), counts, strict=True):
        for counts in of_repeats:
            np.testing.assert_array_equal(counts.intersection, counts.labelled)
            np.testing.assert_array_equal(counts.predicted, counts.labelled)
            np.testing.assert_array_equal(counts.labelled > 0, choice.competing)


def test_features_that_are_not_finite_name_the_photo():
    with pytest.raises(UserError, match="photo 1.*not finite"):
        count(
            lambda image: [embed_means(image) / np.float32(image.shape[0] != 38 or "nan")],
            1,
            photos(),
            SCALE,
            Drawing(),
            [ALL],
        )
