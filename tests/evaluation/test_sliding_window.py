"""Stitching as two matrices against the goldens and against a plain loop over windows and pixels."""

import json

import numpy as np
import pytest

from larvseg_jax.evaluation import sliding_window


def bilinear(image, height, width):
    """Half-pixel centres, clamped, no antialias; (h, w, k) -> (height, width, k), one pixel at a time."""
    h, w = image.shape[:2]
    out = np.zeros((height, width, image.shape[2]))
    for y in range(height):
        v = min(max((y + 0.5) * h / height - 0.5, 0), h - 1)
        for x in range(width):
            u = min(max((x + 0.5) * w / width - 0.5, 0), w - 1)
            y0, x0 = int(v), int(u)
            y1, x1 = min(y0 + 1, h - 1), min(x0 + 1, w - 1)
            top = image[y0, x0] * (1 - u + x0) + image[y0, x1] * (u - x0)
            bottom = image[y1, x0] * (1 - u + x0) + image[y1, x1] * (u - x0)
            out[y, x] = top * (1 - v + y0) + bottom * (v - y0)
    return out


def golden_network(golden, patch):
    """The network of the goldens up to its patch logits: a strided convolution plus the window's mean."""
    weight = golden["conv_weight"].astype(np.float64)

    def network(window):
        h, w = window.shape[0] // patch, window.shape[1] // patch
        patches = window[: h * patch, : w * patch].reshape(h, patch, w, patch, 3)
        logits = np.einsum("hywxc,kcyx->hwk", patches, weight) + golden["conv_bias"]
        return logits + golden["mean_weight"] @ window.mean((0, 1))

    return network


@pytest.mark.parametrize("name", ["slide_s0", "slide_s1"])
def test_golden(shared, name):
    golden = np.load(shared / "goldens" / "given" / f"{name}.npz")
    meta = json.loads(str(golden["meta"]))
    window, stride, patch = meta["crop"][0], meta["stride"][0], meta["patch"]
    image = golden["image"][0].transpose(1, 2, 0)
    height, width = image.shape[:2]

    rows = sliding_window.window_starts(height, window, stride)
    columns = sliding_window.window_starts(width, window, stride)
    boxes = [(y, x, min(y + window, height), min(x + window, width)) for y in rows for x in columns]
    np.testing.assert_array_equal(boxes, golden["windows"])

    network = golden_network(golden, patch)
    windows = sliding_window.cut_windows(image, window, stride)
    logits = np.stack([network(w) for w in windows]).astype(np.float32)
    patches = sliding_window.mosaic(logits, len(rows))

    def matrices(size):
        return (
            sliding_window.stitch_matrix(a, window, stride, grid, b)
            for a, grid, b in zip((height, width), logits.shape[1:3], size, strict=True)
        )

    at_test_size = sliding_window.stitched_logits(patches, *matrices((height, width)))
    np.testing.assert_allclose(at_test_size, golden["logits"][0].transpose(1, 2, 0), atol=2e-5)
    at_own_size = sliding_window.stitched_logits(patches, *matrices(meta["ori_shape"]))
    np.testing.assert_allclose(at_own_size, golden["logits_rescaled"][0].transpose(1, 2, 0), atol=2e-5)
    shifted = np.exp(at_own_size - at_own_size.max(-1, keepdims=True))
    prob = shifted / shifted.sum(-1, keepdims=True)
    np.testing.assert_allclose(prob, golden["prob"][0].transpose(1, 2, 0), atol=2e-5)
    labels = sliding_window.predict_label_map(patches, *matrices(meta["ori_shape"]), class_block=2)
    np.testing.assert_array_equal(labels, golden["pred"][0])


@pytest.mark.parametrize(
    ("size", "window", "stride", "grid", "out"),
    [
        ((20, 33), 12, 8, (3, 3), (20, 33)),  # overlaps of varying width, last window shifted back
        ((20, 33), 12, 12, (3, 4), (31, 29)),
        ((9, 30), 12, 12, (3, 3), (13, 40)),  # rows shorter than the window, seen as they are
    ],
)
def test_matrices_equal_the_loop_over_windows(size, window, stride, grid, out):
    rng = np.random.default_rng(1)
    rows, columns = (sliding_window.window_starts(length, window, stride) for length in size)
    logits = rng.normal(size=(len(rows) * len(columns), *grid, 4)).astype(np.float32)
    total, count = np.zeros((*size, 4)), np.zeros((*size, 1))
    for i, (y, x) in enumerate((y, x) for y in rows for x in columns):
        part = (slice(y, min(y + window, size[0])), slice(x, min(x + window, size[1])))
        h, w = count[part].shape[:2]
        total[part] += bilinear(logits[i], h, w)
        count[part] += 1
    expected = bilinear(total / count, *out)
    assert count.min() == 1

    a, b = (sliding_window.stitch_matrix(n, window, stride, g, m) for n, g, m in zip(size, grid, out, strict=True))
    stitched = sliding_window.stitched_logits(sliding_window.mosaic(logits, len(rows)), a, b)
    np.testing.assert_allclose(stitched, expected, atol=1e-5)


def test_padded_side_is_upsampled_to_the_window_and_cut():
    matrix = sliding_window.stitch_matrix(9, 12, 12, 3, 9, padded=True)
    values = np.array([1.0, -2.0, 5.0])
    expected = bilinear(values[:, None, None], 12, 1)[:9, 0, 0]
    np.testing.assert_allclose(matrix @ values, expected, atol=1e-6)


@pytest.mark.parametrize("class_block", [1, 3, 7, 100])
def test_label_map_in_blocks_equals_argmax(monkeypatch, class_block):
    monkeypatch.setattr(sliding_window, "_BAND_ELEMENTS", 200)  # several bands of rows
    rng = np.random.default_rng(2)
    patches = rng.normal(size=(4, 6, 7)).astype(np.float32) - 9  # all negative: no block starts from zero
    a, b = sliding_window.stitch_matrix(17, 8, 8, 2, 17)[:, :4], sliding_window.stitch_matrix(24, 8, 8, 2, 31)
    labels = sliding_window.predict_label_map(patches, a, b, class_block)
    expected = np.einsum("Hp,pqk,Wq->HWk", a, patches, b).argmax(-1)
    np.testing.assert_array_equal(labels, expected)


@pytest.mark.parametrize("class_block", [1, 2, 5])
def test_equal_logits_go_to_the_lowest_class(class_block):
    patches = np.zeros((2, 2, 5), np.float32)
    patches[..., [1, 3, 4]] = 1.0
    matrix = sliding_window.stitch_matrix(8, 8, 8, 2, 8)
    assert (sliding_window.predict_label_map(patches, matrix, matrix, class_block) == 1).all()


def test_resize_label_map_follows_the_floor_rule():
    labels = np.arange(12, dtype=np.int32).reshape(3, 4)
    resized = sliding_window.resize_label_map(labels, 5, 3)
    expected = [[labels[i * 3 // 5, j * 4 // 3] for j in range(3)] for i in range(5)]
    np.testing.assert_array_equal(resized, expected)


def test_short_image_is_one_window_as_it_is():
    image = np.zeros((5, 30, 3), np.float32)
    assert sliding_window.cut_windows(image, 12, 12).shape == (3, 5, 12, 3)
    assert sliding_window.window_starts(30, 12, 12) == (0, 12, 18)
