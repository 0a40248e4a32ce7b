"""Augmentation against the original's recorded shapes and plain NumPy versions of the specification."""

import concurrent.futures
import json
from pathlib import Path

import cv2
import jax.numpy as jnp
import numpy as np
import pytest

from data_pipelines import transforms
from larvseg_jax.models.pixels import normalised_pictures
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


def shares(*parts, ignored=0):
    """64 x 64 pixels: class i on parts[i] of them, in random places; the rest ignored or class 99."""
    label = np.full(4096, 99, np.int32)
    label[: sum(parts)] = np.repeat(np.arange(len(parts)), parts)
    label[4096 - ignored :] = IGNORE_LABEL
    return np.random.default_rng(0).permutation(label).reshape(64, 64)


@pytest.mark.parametrize(
    ("label", "mixed"),
    [
        (shares(3072, 1024), False),  # exactly three quarters
        (shares(3071, 1025), True),
        (shares(1536, 512, ignored=2048), False),  # the same of what is labelled
        (shares(1535, 513, ignored=2048), True),
        (shares(*[100] * 40), True),  # none on more than a quarter
        (shares(1, 1, ignored=4094), True),  # too few to be seen in a sample
        (shares(0, 1, ignored=4095), False),
        (shares(3, 0, 1, ignored=4092), False),
        (shares(4096), False),
    ],
)
def test_mixed_crops_are_counted_exactly(label, mixed):
    assert transforms._is_mixed(label, 0.75) is mixed
    spread = np.zeros((64, 64), np.int32)
    spread[::16, ::16] = 7  # a sample of every 16th pixel sees nothing else
    assert transforms._is_mixed(spread, 0.75) is False
    spread[32:] = 5
    assert transforms._is_mixed(spread, 0.75) is True


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
        distorted, levels = transforms.photometric_distortion(image, np.random.default_rng(seed))
        wanted = reference_distortion(image, np.random.default_rng(seed))
        np.testing.assert_array_equal(levels[distorted], wanted)
    np.testing.assert_array_equal(image, before)


def test_photometric_distortion_leaves_one_picture_in_sixteen():
    image, rng = noise(0, 6, 6, 3), np.random.default_rng(0)
    distorted = (transforms.photometric_distortion(image, rng) for _ in range(1600))
    unchanged = sum(np.array_equal(image, levels[pixels]) for pixels, levels in distorted)
    # 1/16, and about 1/150 more from changes too small to see (a hue turned by 0, a factor close to 1).
    assert 70 < unchanged < 150


def test_normalise_is_the_formula():
    image = noise(0, 5, 7, 3)
    wanted = (image.astype(np.float64) - [123.675, 116.28, 103.53]) / [58.395, 57.12, 57.375]
    np.testing.assert_allclose(transforms.normalise(image), wanted, rtol=1e-6, atol=1e-7)


def undo(pixels):
    return np.rint(pixels * transforms.STD + transforms.MEAN).astype(int)


def train(image, label, rng, **changes):
    """Pixels of one crop, as a step gets them, and its label."""
    options = dict(scale=(50, 40), ratio_range=(1.0, 1.0), crop_size=16, category_ratio=1.0) | changes
    crop = transforms.train_transform(image, label, rng, **options)
    levels = np.full((1, options["crop_size"], options["crop_size"], 3), 77, np.uint8)
    crop.write(levels[0])
    assert not levels[0, crop.extent[0] :].any()
    assert not levels[0, :, crop.extent[1] :].any()
    return np.asarray(normalised_pictures(jnp.asarray(levels), jnp.asarray(crop.extent[None])))[0], crop.label


def plain_train(image, label, rng, *, scale, ratio_range, crop_size, category_ratio, label_stride):
    """The same one step after the other on whole pictures, without tables and buffers."""
    ratio = rng.uniform(*ratio_range)
    height, width = transforms.resized_shape(*image.shape[:2], scale, ratio)
    image = cv2.resize(image, (width, height), interpolation=cv2.INTER_LINEAR)
    rows, columns = (np.floor(np.arange(n) * (1 / (n / m))) for n, m in zip((height, width), label.shape, strict=True))
    label = label[np.ix_(rows.astype(int).clip(0, label.shape[0] - 1), columns.astype(int).clip(0, label.shape[1] - 1))]
    (top, left), _ = reference_crop(label, crop_size, category_ratio, rng)
    image, label = (a[top : top + crop_size, left : left + crop_size] for a in (image, label))
    if rng.random() < 0.5:
        image, label = image[:, ::-1], label[:, ::-1]
    image = reference_distortion(np.ascontiguousarray(image), rng)
    open_ = [(0, crop_size - n) for n in image.shape[:2]]
    pixels = np.pad((image - [123.675, 116.28, 103.53]) / [58.395, 57.12, 57.375], (*open_, (0, 0)))
    return pixels, np.pad(label, open_, constant_values=-1)[::label_stride, ::label_stride]


def test_train_transform_equals_one_step_after_the_other():
    partly_open = 0
    for seed in range(250):
        rng = np.random.default_rng(seed)
        height, width = rng.integers(20, 90, 2)
        image = cv2.GaussianBlur(noise(seed, height, width, 3), (5, 5), 2)
        label = cv2.resize(rng.integers(-1, 4, (3, 4)).astype(np.int32), (int(width), int(height)), interpolation=0)
        options = dict(scale=(140, 60), ratio_range=(0.5, 2.0), crop_size=46, category_ratio=0.6, label_stride=2)
        before = image.copy(), label.copy()
        pixels, found = train(image, label, np.random.default_rng([seed, 1]), **options)
        wanted, wanted_label = plain_train(image, label, np.random.default_rng([seed, 1]), **options)
        np.testing.assert_allclose(pixels, wanted, rtol=1e-5, atol=1e-6)
        np.testing.assert_array_equal(found, wanted_label)
        np.testing.assert_array_equal(image, before[0])
        np.testing.assert_array_equal(label, before[1])
        partly_open += not wanted[-1].any()
    assert partly_open > 8


def test_crops_outlive_the_ones_made_after_them():
    """Buffers of a thread are used again; what a crop holds must not be one."""
    image, label = noise(0, 40, 60, 3), np.random.default_rng(0).integers(0, 3, (40, 60)).astype(np.int32)
    options = dict(scale=(80, 40), ratio_range=(1.0, 2.0), crop_size=32, category_ratio=1.0)

    def crop(seed, image=image):
        return transforms.train_transform(image, label, np.random.default_rng(seed), **options)

    crops = [crop(seed) for seed in range(40)]
    kept = [(c.image.copy(), c.levels.copy(), c.label.copy()) for c in crops]
    for seed in range(40):
        crop(seed, 255 - image)
    for made, (pixels, levels, places) in zip(crops, kept, strict=True):
        np.testing.assert_array_equal(made.image, pixels)
        np.testing.assert_array_equal(made.levels, levels)
        np.testing.assert_array_equal(made.label, places)
    assert not any(np.shares_memory(c.image, image) for c in crops)


def test_threads_do_not_share_buffers():
    image, label = noise(0, 200, 300, 3), np.kron(np.arange(6).reshape(2, 3), np.ones((100, 100), int)).astype(np.int32)
    options = dict(scale=(400, 200), ratio_range=(0.5, 2.0), crop_size=128, category_ratio=0.75)

    def crop(seed):
        return train(image, label, np.random.default_rng(seed), **options)

    alone = [crop(seed) for seed in range(60)]
    with concurrent.futures.ThreadPoolExecutor(4) as pool:
        together = list(pool.map(crop, range(60)))
    for (pixels, places), (others, other_places) in zip(alone, together, strict=True):
        np.testing.assert_array_equal(pixels, others)
        np.testing.assert_array_equal(places, other_places)


def test_image_and_label_are_cropped_and_flipped_together(monkeypatch):
    same = np.arange(256, dtype=np.uint8)
    monkeypatch.setattr(transforms, "photometric_distortion", lambda image, rng: (image, same))
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
    shapes, resized_shape = [], transforms.resized_shape
    monkeypatch.setattr(
        transforms, "resized_shape", lambda *given: (shapes.append(resized_shape(*given)), shapes[-1])[1]
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
