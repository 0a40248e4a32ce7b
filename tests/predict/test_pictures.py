"""Pictures as people have them: paths, PIL images and arrays become the same RGB, and anything else is refused."""

import numpy as np
import pytest
from PIL import Image

from larvseg_jax.errors import UserError
from larvseg_jax.predict.pictures import as_rgb


@pytest.fixture
def rgb():
    return np.random.default_rng(0).integers(0, 256, (4, 6, 3), dtype=np.uint8)


def test_all_ways_to_give_a_picture_are_one(rgb, tmp_path):
    Image.fromarray(rgb).save(tmp_path / "a.png")
    alpha = np.dstack([rgb, np.arange(24, dtype=np.uint8).reshape(4, 6)])
    given = [
        tmp_path / "a.png",
        str(tmp_path / "a.png"),
        Image.open(tmp_path / "a.png"),
        Image.fromarray(rgb),
        Image.fromarray(alpha, "RGBA"),
        rgb,
        alpha,
        rgb.astype(np.uint16) * 257,
        rgb / 255,
        (rgb / 255).astype(np.float32),
        rgb[::-1][::-1],
    ]
    for picture in given:
        found = as_rgb(picture)
        assert found.dtype == np.uint8
        np.testing.assert_array_equal(found, rgb)


def test_grey_becomes_three_equal_channels(rgb, tmp_path):
    grey = rgb[..., 0]
    deep = grey.astype(np.uint16) * 257
    Image.fromarray(deep).save(tmp_path / "deep.png")
    levels = Image.fromarray(grey)
    given = [grey, grey[..., None], levels, levels.convert("P"), levels.convert("LA"), grey / 255, deep]
    for picture in [*given, Image.fromarray(deep), Image.fromarray(grey.astype(np.int32) * 257), tmp_path / "deep.png"]:
        np.testing.assert_array_equal(as_rgb(picture), np.repeat(grey[..., None], 3, 2))


def test_a_picture_is_turned_as_its_exif_tag_says(rgb, tmp_path):
    exif = Image.Exif()
    exif[0x0112] = 6  # the first row of what is stored is the right side
    Image.fromarray(rgb).save(tmp_path / "a.png", exif=exif)
    for picture in (tmp_path / "a.png", Image.open(tmp_path / "a.png")):
        np.testing.assert_array_equal(as_rgb(picture), np.rot90(rgb, -1))


@pytest.mark.parametrize(
    ("picture", "message"),
    [
        ("https://example.org/cat.jpg", "cat.jpg is an address and no file: download it first"),
        ("none.jpg", "there is no picture none.jpg: give a path, a PIL image or a NumPy array"),
        (".", "is a folder and no file"),
        (7, "a picture cannot be a builtins.int: give a path"),
        (b"\xff\xd8", "a picture cannot be a builtins.bytes"),
        (np.zeros((3, 8, 9), np.uint8), r"channels first: give array.transpose\(1, 2, 0\)"),
        (np.zeros((2, 8, 9, 3), np.uint8), "give a list of pictures"),
        (np.zeros((8, 9, 2), np.uint8), r"shape \(8, 9, 2\): give \(height, width\)"),
        (np.zeros((0, 9, 3), np.uint8), r"shape \(0, 9, 3\)"),
        (np.zeros((8, 9, 3), np.int64), "dtype int64: give uint8, uint16, or floats in 0..1"),
        (np.zeros((8, 9), bool), "dtype bool"),
        (np.full((8, 9, 3), 255.0), "values from 255 to 255: bring them into 0..1"),
        (np.full((8, 9, 3), np.nan), "values from nan to nan"),
        (Image.new("F", (9, 8), -3.0), "of float32 has values from -3 to -3"),
    ],
)
def test_anything_else_is_refused_in_one_line(picture, message, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(UserError, match=message) as caught:
        as_rgb(picture)
    assert "\n" not in str(caught.value)
