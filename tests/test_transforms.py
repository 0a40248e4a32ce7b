"""Augmentation against the original's recorded shapes and plain NumPy versions of the specification."""

import json
from pathlib import Path

import cv2
import numpy as np
import pytest

from data_pipelines import transforms
from larvseg_jax.vocabulary import IGNORE_LABEL


def noise(seed, *shape):
    return np.random.default_rng(seed).integers(0, 256, shape, dtype=np.uint8)


def test_resized_shape_equals_the_original(shared: Path):
    golden = np.load(shared / "goldens" / "given" / "resize_shapes.npz")
    columns = json.loads(str(golden["meta"]))["columns"]
    assert len(golden["rows"]) == 60
    for values in golden["rows"]:
        row = dict(zip(columns, values.tolist(), strict=True))
        scale, ratio = (row["base_long"], row["base_short"]), row["ratio_x1000"] / 1000
        shape = transforms.resized_shape(row["height"], row["width"], scale, ratio)
        assert shape == (row["out_height"], row["out_width"])


def test_resized_shape_never_vanishes():
    assert transforms.resized_shape(1, 5000, (64, 64)) == (1, 64)


def test_resize_label_takes_the_floor():
    rng = np.random.default_rng(0)
    for _ in range(300):
        n_in, n_out = rng.integers(1, 400, 2).tolist()
        line = np.arange(n_in, dtype=np.int32)
        for label, shape in ((line[None], (1, n_out)), (line[:, None], (n_out, 1))):
            source = transforms.resize_label(label, shape).ravel()
            i = np.arange(n_out)
            np.testing.assert_array_equal(source, np.minimum(np.floor(i * (1 / (n_out / n_in))), n_in - 1))
            clear = i * n_in % n_out != 0  # elsewhere OpenCV's rounding decides
            np.testing.assert_array_equal(source[clear], (i * n_in // n_out)[clear])


def bilinear(image, shape):
    """Half-pixel centres, edge pixels repeated, in float64."""
    for axis, n_out in enumerate(shape):
        n_in = image.shape[axis]
        x = np.clip((np.arange(n_out) + 0.5) * n_in / n_out - 0.5, 0, n_in - 1)
        low = np.floor(x).astype(int)
        part = (x - low).reshape([-1 if a == axis else 1 for a in range(image.ndim)])
        image = np.take(image, low, axis) * (1 - part) + np.take(image, np.minimum(low + 1, n_in - 1), axis) * part
    return image


@pytest.mark.parametrize("shape", [(40, 80), (17, 23), (13, 60), (20, 31)])
def test_resize_image_is_bilinear_without_antialiasing(shape):
    image = noise(0, 20, 31, 3)
    resized = transforms.resize_image(image, shape)
    assert np.abs(resized - bilinear(image.astype(float), shape)).max() <= 1


def reference_crop(label, crop_size, category_ratio, rng):
    """The original's rule, with np.unique."""
    margins = np.maximum(np.array(label.shape) - crop_size, 0) + 1
    for draw in range(11):
        top, left = rng.integers(margins)
        values, pixels = np.unique(label[top : top + crop_size, left : left + crop_size], return_counts=True)
        pixels = pixels[values != -1]
        if draw == 10 or (len(pixels) > 1 and pixels.max() / pixels.sum() < category_ratio):
            return (top, left), draw
    raise AssertionError


@pytest.mark.parametrize("category_ratio", [0.4, 0.75, 0.95])
def test_crop_redraws_until_classes_are_mixed(category_ratio):
    draws = []
    for seed in range(150):
        rng = np.random.default_rng(seed)
        label = cv2.resize(rng.integers(-1, 3, (4, 5)).astype(np.int32), (50, 40), interpolation=0)
        label[:, : rng.integers(50)] = rng.integers(-1, 2)
        found = transforms.crop_offset((40, 50), label, 16, category_ratio, np.random.default_rng([seed, 1]))
        wanted, draw = reference_crop(label, 16, category_ratio, np.random.default_rng([seed, 1]))
        assert found == wanted
        draws.append(draw)
    assert {0, 1, 10} <= set(draws)  # taken at once, redrawn, given up


@pytest.mark.parametrize("single", [0, IGNORE_LABEL])
def test_crop_of_one_class_takes_the_eleventh_box(single):
    label = np.full((40, 50), single, np.int32)
    rng = np.random.default_rng(0)
    boxes = [tuple(rng.integers([25, 35])) for _ in range(11)]
    assert transforms.crop_offset((40, 50), label, 16, 0.75, np.random.default_rng(0)) == boxes[10]
    assert transforms.crop_offset((40, 50), label, 16, 1.0, np.random.default_rng(0)) == boxes[0]
    assert transforms.crop_offset((40, 50), None, 16, 0.75, np.random.default_rng(0)) == boxes[0]


def test_crop_is_uniform_and_reaches_both_borders():
    rng = np.random.default_rng(0)
    boxes = np.array([transforms.crop_offset((10, 8), None, 8, 1.0, rng) for _ in range(3000)])
    assert not boxes[:, 1].any()
    counts = np.bincount(boxes[:, 0], minlength=3)
    assert len(counts) == 3
    assert (np.abs(counts - 1000) < 130).all()  # 5 standard deviations


def reference_distortion(image, rng):
    """Formulas of the specification on whole pictures, without tables."""

    def coin():
        return rng.random() < 0.5

    def convert(levels, alpha=1.0, beta=0.0):
        return np.clip(levels.astype(np.float32) * np.float32(alpha) + np.float32(beta), 0, 255).astype(np.uint8)

    if coin():
        image = convert(image, beta=rng.uniform(-32, 32))
    mode = coin()
    if mode and coin():
        image = convert(image, alpha=rng.uniform(0.5, 1.5))
    if coin():
        hsv = cv2.cvtColor(image, cv2.COLOR_RGB2HSV)
        hsv[..., 1] = convert(hsv[..., 1], alpha=rng.uniform(0.5, 1.5))
        image = cv2.cvtColor(hsv, cv2.COLOR_HSV2RGB)
    if coin():
        hsv = cv2.cvtColor(image, cv2.COLOR_RGB2HSV)
        hsv[..., 0] = (hsv[..., 0].astype(int) + rng.integers(-18, 18)) % 180
        image = cv2.cvtColor(hsv, cv2.COLOR_HSV2RGB)
    if not mode and coin():
        image = convert(image, alpha=rng.uniform(0.5, 1.5))
    return image


def test_photometric_distortion_equals_the_formulas():
    image = noise(0, 24, 32, 3)
    before = image.copy()
    for seed in range(300):
        distorted = transforms.photometric_distortion(image, np.random.default_rng(seed))
        np.testing.assert_array_equal(distorted, reference_distortion(image, np.random.default_rng(seed)))
    np.testing.assert_array_equal(image, before)


def test_photometric_distortion_leaves_one_picture_in_sixteen():
    image, rng = noise(0, 6, 6, 3), np.random.default_rng(0)
    unchanged = sum(np.array_equal(image, transforms.photometric_distortion(image, rng)) for _ in range(1600))
    # 1/16, and about 1/150 more from changes too small to see (a hue turned by 0, a factor close to 1).
    assert 70 < unchanged < 150


def test_normalise_is_the_formula():
    image = noise(0, 5, 7, 3)
    wanted = (image.astype(np.float64) - [123.675, 116.28, 103.53]) / [58.395, 57.12, 57.375]
    np.testing.assert_allclose(transforms.normalise(image), wanted, rtol=1e-6, atol=1e-7)


def undo(pixels):
    return np.rint(pixels * transforms.STD + transforms.MEAN).astype(int)


def train(image, label, rng, **changes):
    options = dict(scale=(50, 40), ratio_range=(1.0, 1.0), crop_size=16, category_ratio=1.0) | changes
    return transforms.train_transform(image, label, rng, **options)


def test_image_and_label_are_cropped_and_flipped_together(monkeypatch):
    monkeypatch.setattr(transforms, "photometric_distortion", lambda image, rng: image)
    image = noise(0, 40, 50, 3)
    label = np.arange(2000, dtype=np.int32).reshape(40, 50)  # says where each pixel comes from
    flips = 0
    for seed in range(400):
        pixels, places = train(image, label, np.random.default_rng(seed))
        assert pixels.shape == (16, 16, 3)
        assert places.shape == (16, 16)
        np.testing.assert_array_equal(undo(pixels), image.reshape(-1, 3)[places])
        step = places[0, 1] - places[0, 0]
        np.testing.assert_array_equal(places[0], places[0, 0] + step * np.arange(16))
        np.testing.assert_array_equal(places[:, 0], places[0, 0] + 50 * np.arange(16))
        flips += step == -1
    assert 150 < flips < 250  # 5 standard deviations around a half


def test_ratio_is_uniform(monkeypatch):
    shapes, resize = [], transforms.resize_image
    monkeypatch.setattr(
        transforms, "resize_image", lambda image, shape: (shapes.append(shape), resize(image, shape))[1]
    )
    image, rng = noise(0, 20, 20, 3), np.random.default_rng(0)
    for _ in range(1500):
        train(image, None, rng, scale=(400, 100), ratio_range=(0.5, 2.0))
    sides = np.sort([height for height, _ in shapes])
    assert 50 <= sides[0] < 53
    assert 197 < sides[-1] <= 200
    assert np.abs(sides[150::150] - np.arange(65, 200, 15)).max() < 9  # deciles; 4.5 standard deviations


def test_small_pictures_are_padded_after_normalising():
    pixels, label = train(noise(0, 20, 30, 3), np.ones((20, 30), np.int32), np.random.default_rng(0), scale=(12, 12))
    assert pixels.shape == (16, 16, 3)
    assert not pixels[8:].any()
    assert not pixels[:, 12:].any()
    assert np.count_nonzero(pixels[:8, :12]) > 200
    np.testing.assert_array_equal(label != IGNORE_LABEL, np.pad(np.ones((8, 12), bool), ((0, 8), (0, 4))))
    pixels, label = train(noise(0, 20, 30, 3), None, np.random.default_rng(0), scale=(12, 12))
    assert pixels.shape == (16, 16, 3)
    assert label is None


@pytest.mark.parametrize("shape", [(1, 1), (1, 60), (60, 1), (3, 2)])
def test_extreme_pictures_pass(shape):
    for seed in range(8):
        rng = np.random.default_rng(seed)
        pixels, label = train(noise(0, *shape, 3), np.zeros(shape, np.int32), rng, ratio_range=(0.5, 2.0))
        assert pixels.shape == (16, 16, 3)
        assert label.shape == (16, 16)


def test_eval_transform_resizes_and_normalises():
    pixels = transforms.eval_transform(noise(0, 40, 60, 3), (2048, 20))
    assert pixels.dtype == np.float32
    wanted = bilinear(noise(0, 40, 60, 3).astype(float), (20, 30))
    np.testing.assert_allclose(undo(pixels), wanted, atol=1.01)
