"""evaluate() against one photo at a time, one window at a time, with OpenCV's resize."""

import cv2
import numpy as np
import pytest

from larvseg_jax import options
from larvseg_jax.errors import UserError
from larvseg_jax.evaluation.config import EvalConfig
from larvseg_jax.evaluation.scoring import evaluate
from larvseg_jax.vocabulary import Vocabulary

NAMES = ("background", "cat", "dog", "cow")
VOCABULARY = Vocabulary(NAMES, base=("cat", "dog"), novel=("cow",), background="background")
PATCH, WINDOW, BATCH = 4, 16, 4
WEIGHT = np.random.default_rng(3).normal(size=(3, 5))
WEIGHT[:, 4] *= 50  # a padded column, which must never win
MEAN, STD = np.array([123.675, 116.28, 103.53]), np.array([58.395, 57.12, 57.375])

# Heights and widths of the photos; at test resolution: 2, 3, 1 windows, and one shorter than the window.
SIZES = [(20, 30), (45, 19), (18, 18), (12, 70), (21, 29)]


class Photos:
    """Random pixels, random labels, some of them ignored."""

    def __len__(self):
        return len(SIZES)

    def __getitem__(self, index):
        rng = np.random.default_rng(index)
        return {
            "id": f"photo {index}",
            "image": rng.integers(0, 256, (*SIZES[index], 3), dtype=np.uint8),
            "label": rng.integers(-1, 4, SIZES[index], dtype=np.int32),
        }


class Network:
    """Patch means times a matrix; remembers the shapes it was called with."""

    def __init__(self):
        self.shapes = []

    def __call__(self, windows):
        self.shapes.append(windows.shape)
        n, s, _, _ = windows.shape
        means = windows.reshape(n, s // PATCH, PATCH, s // PATCH, PATCH, 3).mean((2, 4))
        return (means @ WEIGHT).astype(np.float32)


def score(network, batch=BATCH, keep=(), **changes):
    """`evaluate` with some options of the evaluation changed."""
    settings = dict(scale=(48, 16), window=WINDOW, stride=WINDOW) | changes
    return evaluate(
        network, Photos(), VOCABULARY.label_set(), VOCABULARY, EvalConfig(**settings), batch=batch, keep=keep
    )


def resized(image, size):
    return cv2.resize(image, size[::-1], interpolation=cv2.INTER_LINEAR)


def plain_prediction(image, resize):
    """Method 10, literally, but for the zero padding of short windows."""
    height, width = image.shape[:2]
    factor = min(48 / max(height, width), 16 / min(height, width))
    small = resized(image, (int(height * factor + 0.5), int(width * factor + 0.5)))
    pixels = ((small - MEAN) / STD).astype(np.float32)
    h, w = pixels.shape[:2]
    total, hits = np.zeros((h, w, 4), np.float32), np.zeros((h, w, 1), np.float32)
    for i in range(-(-max(h - WINDOW, 0) // WINDOW) + 1):
        for j in range(-(-max(w - WINDOW, 0) // WINDOW) + 1):
            bottom, right = min((i + 1) * WINDOW, h), min((j + 1) * WINDOW, w)
            top, left = max(bottom - WINDOW, 0), max(right - WINDOW, 0)
            window = np.zeros((WINDOW, WINDOW, 3), np.float32)
            window[: bottom - top, : right - left] = pixels[top:bottom, left:right]
            logits = Network()(window[None])[0, ..., :4]
            total[top:bottom, left:right] += resized(logits, (WINDOW, WINDOW))[: bottom - top, : right - left]
            hits[top:bottom, left:right] += 1
    logits = total / hits
    if resize == "logits":
        return resized(logits, (height, width)).argmax(-1)
    return cv2.resize(logits.argmax(-1).astype(np.uint8), (width, height), interpolation=cv2.INTER_NEAREST)


@pytest.mark.parametrize("resize", ["logits", "labels"])
def test_equals_one_window_at_a_time(resize):
    summary, predictions = score(Network(), resize=resize, keep=range(5))
    hit, union = np.zeros(4), np.zeros(4)
    for i in range(len(SIZES)):
        example = Photos()[i]
        expected = plain_prediction(example["image"], resize)
        assert (predictions[i] == expected).mean() > 0.995  # the rest: ties up to rounding
        seen = example["label"] >= 0
        for k in range(4):
            mine, truth = seen & (predictions[i] == k), example["label"] == k
            hit[k] += (mine & truth).sum()
            union[k] += (mine | truth).sum()
    np.testing.assert_allclose(summary.iou, hit / union)
    assert summary.base_iou == pytest.approx((hit / union)[1:3].mean())


def test_windows_of_several_photos_fill_one_batch():
    network = Network()
    score(network)
    windows = 2 + 3 + 1 + 3 + 2
    assert network.shapes == [(BATCH, WINDOW, WINDOW, 3)] * -(-windows // BATCH)


def test_batch_size_changes_nothing():
    results = [score(Network(), batch=batch)[0] for batch in (1, 3, 64)]
    for result in results[1:]:
        np.testing.assert_array_equal(result.iou, results[0].iou)


def test_limit_and_keep():
    network = Network()
    summary, kept = score(network, limit=2, keep=[1, 4])
    assert kept.keys() == {1}
    assert kept[1].shape == SIZES[1]
    assert summary.labelled.sum() == sum((Photos()[i]["label"] >= 0).sum() for i in range(2))


def test_logits_that_are_not_finite_name_the_photo():
    def diverged(windows):
        return np.where(np.arange(5) == 1, np.float32("nan"), Network()(windows))

    with pytest.raises(UserError, match="photo 0.*not finite"):
        score(diverged)


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        (dict(resize="nearest"), "evals.val.resize is 'nearest': use 'logits' or 'labels'"),
        (dict(stride=600), "evals.val: stride is 600: choose 1 to window = 512"),
        (dict(window=0), "evals.val.window is 0: use 1 or more"),
        (dict(stride=0), "evals.val.stride is 0: use 1 or more"),
        (dict(window=99), "evals.val: stride is 512: choose 1 to window = 99"),
        (dict(limit=-1), "evals.val.limit is -1: use 0 or more"),
        (dict(scale=(0, 512)), "evals.val: scale is (0, 512): give two sides in pixels, such as (2048, 512)"),
    ],
)
def test_settings_that_cannot_work_are_refused(wrong, message):
    with pytest.raises(UserError) as caught:
        options.read(EvalConfig, wrong, "evals.val")
    assert str(caught.value) == message


def test_at_most_two_batches_are_on_the_device():
    """One being computed, one being fetched; more would only cost memory."""
    flying = [0, 0]  # now, most

    class Pending:
        def __init__(self, logits):
            self.logits = logits
            flying[0] += 1
            flying[1] = max(flying)

        def __array__(self, dtype=None, copy=None):
            flying[0] -= 1
            return self.logits

    network = Network()
    score(lambda windows: Pending(network(windows)), batch=1)
    assert flying == [0, 2]
