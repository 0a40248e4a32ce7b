"""Boxes and crops against OpenCV, whose cubic kernel is the same, and against what was recorded; masks on pixels."""

import shutil

import cv2
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy.special import softmax

from larvseg_jax.methods.crops import boxes_of, class_scores, crops_of, masks_on_pixels
from larvseg_jax.pseudo_labels.labeller import best_scores, of_photo
from tests.parity.__main__ import main

SIDE = 9
BOXES = [(2, 3, 11, 7), (0, 0, 1, 1), (5, 0, 16, 12), (15, 11, 16, 12)]  # the last column and row, too


@pytest.fixture(scope="module")
def crops():
    return jax.jit(crops_of, static_argnames="side")


def masks():
    """Two opposite corners of each box, and an empty mask."""
    found = np.zeros((len(BOXES) + 1, 12, 16), bool)
    for mask, (left, top, right, bottom) in zip(found, BOXES, strict=False):
        mask[top, left] = mask[bottom - 1, right - 1] = True
    return found


def test_boxes_are_exclusive_at_the_right_and_bottom():
    found = np.asarray(boxes_of(jnp.asarray(masks())))
    np.testing.assert_array_equal(found, [*BOXES, (0, 0, 0, 0)])
    assert found.dtype == np.int32


@pytest.mark.parametrize("fill", [None, (0.5, -1.0, 2.0)])
def test_crops_are_those_of_opencv(crops, fill):
    image = np.random.default_rng(0).normal(size=(12, 16, 3)).astype(np.float32)
    colour = None if fill is None else jnp.asarray(fill, jnp.float32)
    found, valid = crops(jnp.asarray(image), jnp.asarray(masks()), SIDE, colour)
    assert valid.tolist() == [True] * len(BOXES) + [False]
    for crop, mask, (left, top, right, bottom) in zip(found, masks(), BOXES, strict=False):
        shown = image if fill is None else np.where(mask[..., None], image, np.float32(fill))
        box = np.ascontiguousarray(shown[top:bottom, left:right])
        expected = cv2.resize(box, (SIDE, SIDE), interpolation=cv2.INTER_CUBIC)
        np.testing.assert_allclose(crop, expected, atol=2e-5)
    assert not np.asarray(found[-1]).any()


def test_masks_are_enlarged_and_end_with_the_photo():
    logits = np.random.default_rng(1).normal(size=(2, 3, 4, 4)).astype(np.float32)
    content = np.array([[8, 8], [5, 3]], np.int32)
    shown = of_photo(jnp.asarray(content), 8)
    found = np.asarray(masks_on_pixels(jnp.asarray(logits), (8, 8)) & shown[:, None])
    expected = np.stack([[cv2.resize(q, (8, 8), interpolation=cv2.INTER_LINEAR) > 0 for q in of] for of in logits])
    expected[1, :, 5:], expected[1, :, :, 3:] = False, False
    np.testing.assert_array_equal(found, expected)


def test_a_region_without_a_crop_scores_nothing():
    """Its vector is 0, which would be as like to one class as to another."""
    images = jnp.asarray([[3.0, 4.0], [0.0, 0.0]])
    text = jnp.eye(2)
    scores = class_scores(images, text, jnp.asarray(5.0))
    np.testing.assert_allclose(scores, softmax([[3.0, 4.0], [0.0, 0.0]], axis=1), rtol=1e-5)
    np.testing.assert_allclose(best_scores(scores, jnp.array([True, False])), scores[0])
    assert not np.asarray(best_scores(scores, jnp.zeros(2, bool))).any()


def test_the_golden(shared, tmp_path, capsys):
    given = shared / "goldens-vl" / "given" / "cel_pseudo_labels.npz"
    shutil.copy(given, tmp_path)
    assert main([str(tmp_path)]) == 0, capsys.readouterr().out
    with np.load(given) as file:
        arrays = {name: file[name] for name in file.files}
    arrays["out/boxes_xyxy"][0, 2] += 1
    np.savez(tmp_path / given.name, **arrays)
    assert main([str(tmp_path)]) == 1
    assert "FAILED cel_pseudo_labels: boxes_xyxy" in capsys.readouterr().out
